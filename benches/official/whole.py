"""Seconds that the official SparseGPT and ALPS codes take for a whole model, beside this program's, on the same tokens.

    python whole.py --sparsegpt DIR --alps DIR --binary fista-pruner --model DIR --calibration TEXT
                    [--sparsity 0.5] [--samples 32] [--seq-len 512] [--ways fast,sparsegpt,best,alps,paper] [--threads 2]

DIR are clones of github.com/IST-DASLab/sparsegpt and github.com/mazumder-lab/ALPS; `--model` is a LLaMA. The `llama_sequential`
of each is executed as it stands, but for the device (the CPU) and what today's transformers ask for: a layer gets all the
arguments that the model gives it. They are timed from the opened model to the last pruned layer; this program's time is that of the
whole command, which also reads the model, writes the pruned one and reads it back. All compute in f32 with the same number of
threads, one after the other. Needs torch, transformers, numpy and safetensors.
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

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("sparsegpt", "alps", "binary", "model", "calibration"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("--sparsity", type=float, default=0.5)
parser.add_argument("--samples", type=int, default=32)
parser.add_argument("--seq-len", type=int, default=512)
parser.add_argument("--ways", default="fast,sparsegpt,best,alps,paper")
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: E402

torch.set_num_threads(arguments.threads)
torch.cuda.synchronize = lambda *a, **k: None
# ALPS's file imports it for tables of results that are not made here.
sys.modules.setdefault("pandas", types.ModuleType("pandas"))

PATCHES = {
    "cuda:0": "cpu",
    'cache["attention_mask"] = kwargs["attention_mask"]': "cache.update(attention_mask=None, given=kwargs)",
    "cache['attention_mask'] = kwargs['attention_mask']": "cache.update(attention_mask=None, given=kwargs)",
    "cache['position_ids'] = kwargs['position_ids']": "cache['position_ids'] = None",
    "attention_mask=attention_mask, position_ids=position_ids)": "**cache['given'])",
    "attention_mask=attention_mask)": "**cache['given'])",
}


def official(folder, settings):
    """A repository's llama.py, with the command line it would have had."""
    sys.path.insert(0, folder)
    for name in ("modelutils", "quant", "sparsegpt", "alps", "datautils"):
        sys.modules.pop(name, None)
    parts = types.ModuleType("parts")
    for file in ("sparsegpt.py", "alps.py"):
        path = os.path.join(folder, file)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as source:
                code = compile(source.read().replace("cuda:0", "cpu"), path, "exec")
            made = types.ModuleType(file[:-3])
            sys.modules[file[:-3]] = made
            exec(code, made.__dict__)
    path = os.path.join(folder, "llama.py")
    with open(path, encoding="utf-8") as file:
        source = file.read()
    for before, after in PATCHES.items():
        source = source.replace(before, after)
    parts.__name__ = "llama"
    parts.args = argparse.Namespace(**settings)
    exec(compile(source, path, "exec"), parts.__dict__)
    sys.path.remove(folder)
    return parts


def windows():
    """`samples` windows of token ids from the text, evenly spaced."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    with open(arguments.calibration, encoding="utf-8") as file:
        ids = tokenizer(file.read(), return_tensors="pt").input_ids[0]
    last = len(ids) - arguments.seq_len
    starts = [last * i // max(arguments.samples - 1, 1) for i in range(arguments.samples)]
    return torch.stack([ids[s : s + arguments.seq_len] for s in starts])


def zeros(model):
    weights = [m.weight for layer in model.model.layers for m in layer.modules() if isinstance(m, torch.nn.Linear)]
    return sum((w == 0).sum().item() for w in weights) / sum(w.numel() for w in weights)


def run_official(way, ids):
    shared = {"nsamples": arguments.samples, "minlayer": -1, "maxlayer": 1000, "prune_only": "", "invert": False}
    if way == "sparsegpt":
        own = {"sparsity": arguments.sparsity, "prunen": 0, "prunem": 0, "percdamp": 0.01, "blocksize": 128}
        code = official(arguments.sparsegpt, {**shared, **own, "true_sequential": False, "wbits": 16})
    else:
        own = {"method": "ALPS", "sp": arguments.sparsity, "nm_n": 0, "nm_m": 0}
        code = official(arguments.alps, {**shared, **own})
    model = LlamaForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    model.seqlen = arguments.seq_len
    loader = [(row.unsqueeze(0), None) for row in ids]
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        if way == "sparsegpt":
            code.llama_sequential(model, loader, "cpu")
        else:
            code.llama_sequential(model, loader, "cpu", nsamples=arguments.samples)
        seconds = time.perf_counter() - start
    return seconds, zeros(model)


def run_ours(way, ids_file, folder):
    command = [arguments.binary, "prune", "--model", arguments.model, "--calibration", ids_file, "--preset", way]
    command += ["--sparsity", str(arguments.sparsity), "--output", os.path.join(folder, way), "--overwrite", "--device", "flex"]
    start = time.perf_counter()
    outcome = subprocess.run(command + ["--format", "json", "-q"], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    operators = json.loads(outcome.stdout)["operators"]
    weights = sum(o["shape"][0] * o["shape"][1] for o in operators)
    return seconds, sum(o["zeros"] for o in operators) / weights


ids = windows()
taken = {}
with tempfile.TemporaryDirectory() as folder:
    ids_file = os.path.join(folder, "ids.safetensors")
    save_file({"input_ids": ids.to(torch.int64).contiguous()}, ids_file)
    for way in arguments.ways.split(","):
        ours = way in ("paper", "fast", "best")
        seconds, share = run_ours(way, ids_file, folder) if ours else run_official(way, ids)
        # The machine may be shared: of several times the shortest counts.
        taken[way] = min(seconds, taken.get(way, seconds))
        print(f"{way:10} {seconds:8.1f} s, zeros {share:.6f}", flush=True)
for ours, theirs in (("fast", "sparsegpt"), ("best", "alps"), ("paper", "alps")):
    if ours in taken and theirs in taken:
        print(f"{theirs} / {ours}: {taken[theirs] / taken[ours]:.2f}")
