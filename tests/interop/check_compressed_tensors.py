#!/usr/bin/env python3
"""Checks `pack --container compressed-tensors` with a version of compressed-tensors that still reads sparse formats.

usage: check_compressed_tensors.py --program PATH

Needs compressed-tensors 0.9 to 0.14 and transformers, with torch. Prints a row for each model; exits with 1 if anything
was wrong.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import compressed_tensors
import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models" / "tests" / "fixtures" / "models"

# Model (None: built in), options of `prune`, the format that must come out.
CASES = [
    (None, ["--sparsity", "0.5"], "sparse-bitmask"),
    (None, ["--sparsity", "0.7", "--ignore", r"fc2"], "sparse-bitmask"),
    (None, ["--sparsity", "2:4"], "sparse-24-bitmask"),
    (None, ["--sparsity", "1:4", "--ignore", r"layers\.1\."], "sparse-24-bitmask"),
    ("llama1-style", ["--sparsity", "0.5"], "sparse-bitmask"),
    ("llama1-style", ["--sparsity", "2:4"], "sparse-24-bitmask"),
    ("opt-350m-style", ["--sparsity", "2:4"], "sparse-24-bitmask"),
    ("qwen3-style", ["--sparsity", "0.6"], "sparse-bitmask"),
]


def stored(folder):
    """Every tensor of a folder's weight files, by name."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def same(a, b):
    """Bit for bit, dtype and shape included."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def expect(ok, message):
    if not ok:
        raise AssertionError(message)


def run(program, *arguments):
    line = [str(word) for word in (program, *arguments, "--format", "json", "--quiet")]
    done = subprocess.run(line, capture_output=True, text=True)
    expect(done.returncode == 0, f"{' '.join(line)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def prune(program, model, options, work):
    """Folder of a pruned model, with its sparse export beside it, and what `pack` said."""
    arguments = ["--output", work / "plain", "--method", "magnitude", *options]
    if model is not None:
        dense = work / "dense"
        shutil.copytree(MODELS / model, dense, ignore=shutil.ignore_patterns("expected*"))
        ids = work / "ids.safetensors"
        save_file({"input_ids": torch.arange(64).reshape(2, 32)}, ids)
        arguments += ["--model", dense, "--calibration", ids]
    else:
        arguments += ["--samples", "2", "--seq-len", "64"]
    run(program, "prune", *arguments)
    summary = run(program, "pack", "--model", work / "plain", "--output", work / "sparse", "--container", "compressed-tensors")
    return work / "plain", work / "sparse", summary


def check_files(compressor, plain, sparse):
    """What the package makes of each weight is what the program wrote. Returns the number of compressed weights."""
    dense, written = stored(plain), stored(sparse)
    compressed = 0
    for name, tensor in dense.items():
        module = name.removesuffix(".weight")
        if name in written:
            expect(same(tensor, written[name]), f"{name} was changed")
            continue
        compressed += 1
        theirs = compressor.compress_weight(module, tensor)
        ours = {key: written[key] for key in theirs}
        for key in theirs:
            exact = "bitmask" not in key and "compressed" not in key
            if compressor.config.format == "sparse-bitmask" or exact:
                expect(same(ours[key], theirs[key]), f"{key} is not what the package writes")
            expect(ours[key].shape == theirs[key].shape, f"{key} has the shape {ours[key].shape}")
        if compressor.config.format == "sparse-24-bitmask":
            # Which zeros are kept in a group with fewer than two others is the writer's choice.
            bits = sum(ours[f"{module}.bitmask"].flatten() >> i & 1 for i in range(8))
            expect(int(bits.sum()) * 2 == tensor.numel(), f"{module}.bitmask does not keep half")
    index = sparse / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"])
        expect(names == set(written), f"the index differs in {names ^ set(written)}")
    return compressed


def check_model(model, plain):
    """Every tensor of the loaded model is the plain folder's."""
    loaded, found = model.state_dict(), 0
    for name, tensor in stored(plain).items():
        if name in loaded:
            found += 1
            expect(same(loaded[name], tensor), f"{name} differs in the loaded model")
    expect(found == len(stored(plain)), f"only {found} tensors were found in the model")


def dtype_of(plain):
    return next(iter(stored(plain).values())).dtype


def check(program, model, options, expected, work):
    plain, sparse, summary = prune(program, model, options, work)
    expect(summary["sparse_format"] == expected, f"{summary['sparse_format']} was chosen")
    compressor = ModelCompressor.from_pretrained(str(sparse))
    expect(compressor.sparsity_config.format == expected, "config.json names another format")
    compressed = check_files(compressor.sparsity_compressor, plain, sparse)
    expect(compressed == summary["packed_tensors"]["count"], f"{compressed} weights are compressed")
    config = AutoConfig.from_pretrained(plain)
    empty = AutoModelForCausalLM.from_config(config, torch_dtype=dtype_of(plain))
    compressor.decompress(str(sparse), empty)
    check_model(empty, plain)
    if expected != "sparse-24-bitmask" or not hasattr(ModelCompressor, "compress_model"):
        return compressed, "-"
    # transformers makes compressed modules on the meta device, which only this format's compressor can, in later versions.
    check_model(AutoModelForCausalLM.from_pretrained(sparse, torch_dtype=dtype_of(plain)), plain)
    return compressed, "ok"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, type=lambda p: Path(p).resolve(), help="the fista-pruner binary")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    print(f"compressed-tensors {compressed_tensors.__version__}, transformers {transformers.__version__}, torch {torch.__version__}\n")
    print(f"{'model':<16} {'options':<34} {'format':<18} {'weights':<8} decompress from_pretrained")
    wrong = []
    for model, options, expected in CASES:
        name = model or "demo (built in)"
        with tempfile.TemporaryDirectory() as work:
            try:
                compressed, loaded = check(args.program, model, options, expected, Path(work))
                outcome = f"{compressed:<8} ok         {loaded}"
            except Exception as error:  # noqa: BLE001 - anything that goes wrong is a finding, and the rest still runs
                wrong.append(f"{name} {' '.join(options)}: {type(error).__name__}: {re.sub(chr(10), ' ', str(error))}")
                outcome = "WRONG"
        print(f"{name:<16} {' '.join(options):<34} {expected:<18} {outcome}", flush=True)
    print(f"\n{len(CASES)} exports, {len(wrong)} mismatches")
    for text in wrong:
        print(f"- {text}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
