"""Times and errors of the official SparseGPT and ALPS codes beside this program's, on saved statistics of real operators.

    python layers.py --sparsegpt DIR --alps DIR --binary fista-pruner --statistics FILE.safetensors [--threads 2]

DIR are clones of github.com/IST-DASLab/sparsegpt and github.com/mazumder-lab/ALPS, read as they are: they are told to
compute on the CPU and nothing else. FILE has NAME.weight [out, in] and NAME.gram [in, in], as `prune --save-statistics`
writes them. Every code gets the same matrices and the same number of threads, and is timed from weight and Gram matrix to
pruned weight. Runs go round in turn, `--repeat` times, and the fastest of each counts: the machine may be shared.
Needs torch, transformers, numpy and safetensors.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import types

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--sparsegpt", required=True)
arguments.add_argument("--alps", required=True)
arguments.add_argument("--binary", required=True)
arguments.add_argument("--statistics", required=True)
arguments.add_argument("--operators", default="q_proj,o_proj,up_proj,down_proj")
arguments.add_argument("--patterns", default="0.5,2:4,0.7")
arguments.add_argument("--presets", default="fast,best")
arguments.add_argument("--threads", type=int, default=2)
arguments.add_argument("--repeat", type=int, default=3)
arguments = arguments.parse_args()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

torch.set_num_threads(arguments.threads)
torch.cuda.synchronize = lambda *a, **k: None
# SparseGPT's file imports its repository's quantiser, which pruning does not use.
sys.modules["quant"] = types.ModuleType("quant")


def module(path):
    """A Python file as a module, computing on the CPU."""
    with open(path, encoding="utf-8") as file:
        source = file.read().replace("cuda:0", "cpu")
    made = types.ModuleType(os.path.basename(path))
    exec(compile(source, path, "exec"), made.__dict__)
    return made


sparsegpt = module(os.path.join(arguments.sparsegpt, "sparsegpt.py"))
alps = module(os.path.join(arguments.alps, "alps.py"))


def linear(weight):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return layer


def pattern_of(text):
    if ":" in text:
        n, m = map(int, text.split(":"))
        return 1 - n / m, n, m
    return float(text), 0, 0


def run_sparsegpt(weight, gram, pattern):
    rate, n, m = pattern_of(pattern)
    layer = linear(weight)
    pruner = sparsegpt.SparseGPT(layer)
    pruner.H = 2 * gram
    pruner.fasterprune(rate, prunen=n, prunem=m, percdamp=0.01, blocksize=128)
    return layer.weight.data


def run_alps(weight, gram, pattern):
    rate, n, m = pattern_of(pattern)
    layer = linear(weight)
    pruner = alps.ALPS_prune(layer, nsamples=1, seqlen=1)
    pruner.XtX = gram.clone()
    pruner.ALPS_admm(sp=rate, nm_n=n, nm_m=m, rho=0.1)
    return layer.weight.data


def relative_error(weight, gram, pruned):
    w, g = weight.double(), gram.double()
    d = pruned.double() - w
    return ((d @ g) * d).sum().item() / ((w @ g) * w).sum().item()


def run_ours(preset):
    def run(operator, pattern):
        command = [arguments.binary, "solve", "--statistics", arguments.statistics, "--operator", operator]
        command += ["--sparsity", pattern, "--preset", preset, "--device", "flex", "--format", "json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    return run


tensors = load_file(arguments.statistics)
presets = arguments.presets.split(",")
columns = ["sparsegpt", "alps", *presets]
print(f"{'operator':10} {'pattern':8}" + "".join(f"{c + ' err':>15}{'s':>8}" for c in columns))
totals = dict.fromkeys(columns, 0.0)
logs = {c: [] for c in columns}
for operator in arguments.operators.split(","):
    weight, gram = tensors[f"{operator}.weight"].float(), tensors[f"{operator}.gram"].float()
    for pattern in arguments.patterns.split(","):
        seconds = dict.fromkeys(columns, float("inf"))
        errors = {}
        for _ in range(arguments.repeat):
            for name, run in (("sparsegpt", run_sparsegpt), ("alps", run_alps)):
                with contextlib.redirect_stdout(io.StringIO()):
                    start = time.perf_counter()
                    pruned = run(weight, gram, pattern)
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
                errors[name] = relative_error(weight, gram, pruned)
            for preset in presets:
                outcome = run_ours(preset)(operator, pattern)
                seconds[preset] = min(seconds[preset], outcome["seconds"])
                errors[preset] = outcome["relative_error"]
        print(
            f"{operator:10} {pattern:8}" + "".join(f"{errors[c]:15.6f}{seconds[c]:8.2f}" for c in columns), flush=True
        )
        for c in columns:
            totals[c] += seconds[c]
            logs[c].append((errors[c], seconds[c]))


def ratios(name, reference):
    error = [a[0] / b[0] for a, b in zip(logs[name], logs[reference])]
    time_ = [a[1] / b[1] for a, b in zip(logs[name], logs[reference])]
    print(
        f"{name} / {reference}: error {min(error):.4f} to {max(error):.4f}, mean {sum(error) / len(error):.4f}; "
        f"seconds {min(time_):.2f} to {max(time_):.2f}, of the total {totals[name] / totals[reference]:.2f}"
    )


for preset in presets:
    for reference in ("sparsegpt", "alps"):
        ratios(preset, reference)
