#!/usr/bin/env python3
"""Checks the program against transformers: every fixture model and the demo model, dense and pruned.

usage: check.py --program PATH [--only REGEX] [--device NAME] [--work DIR] [--models DIR ...]

Prints a table, a row for each model and variant, and what was wrong below it. Exits with 1 if anything was.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "models" / "tests" / "fixtures"
REPORT = "pruning_report.json"
PAGE = "report.html"

# Greatest absolute differences allowed.
LOGITS = 2e-4
NLL = 2e-5

# More than the inputs of any fixture's operator: with fewer, its Gram matrix is singular, and FISTA runs long.
CALIBRATION_TOKENS = 1280

# The paper's ε for OPT, 1e-6, takes minutes on the demo model and tests nothing else.
FISTA = ["--method", "fista", "--epsilon", "1e-3"]

# Name of the variant: options of `prune`, pattern (n of m, or the share of zeros).
VARIANTS = {
    "sparsegpt 0.5": (["--method", "sparsegpt", "--sparsity", "0.5"], 0.5),
    "sparsegpt 2:4": (["--method", "sparsegpt", "--sparsity", "2:4"], (2, 4)),
    "fista 0.5": ([*FISTA, "--sparsity", "0.5"], 0.5),
    "fista 2:4": ([*FISTA, "--sparsity", "2:4"], (2, 4)),
    "default 0.5": (["--sparsity", "0.5"], 0.5),
    "default 2:4": (["--sparsity", "2:4"], (2, 4)),
}

# The operators that are pruned: every linear map of a decoder layer, by the names of the supported families.
OPERATOR = re.compile(
    r"layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|o_proj|out_proj)|mlp\.(gate_proj|up_proj|down_proj)|fc1|fc2)\.weight$"
)

# How the sign is taken off, for counting zeros in stored bytes.
UNSIGNED = {"F16": ("<u2", 0x7FFF), "BF16": ("<u2", 0x7FFF), "F32": ("<u4", 0x7FFF_FFFF)}

# Structured pruning in every way; heads where the family has them.
SHRUNK = {
    "less mlp": ["--units", "mlp", "--remove", "0.3"],
    "less heads": ["--units", "heads,mlp", "--remove", "0.3"],
    "less layers": ["--units", "layers", "--remove", "0.33"],
}

DEMO_PROMPTS = ["Once upon a time", "The little dog was sad because", "Tom and Mia went to the park."]


class Wrong(Exception):
    """A mismatch."""


def expect(ok, message):
    if not ok:
        raise Wrong(message)


# ---------------------------------------------------------------------------------------------------------------------
# Models


class Source:
    """A dense checkpoint: `folder` holds it, `arguments` select it on the command line. `calibration` and `ids` are the
    windows to calibrate with and to compare on; `expected` holds what a fixture came with, for its first windows."""

    def __init__(self, name, folder, arguments, calibration, ids, prompts, expected=None):
        self.name, self.folder, self.arguments = name, folder, arguments
        self.calibration, self.ids, self.prompts, self.expected = calibration, ids, prompts, expected
        self.warnings = None  # what transformers says about the dense folder


def random_ids(name, vocabulary, windows, tokens):
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, vocabulary, (windows, tokens), dtype=np.int64)


def words(vocabulary):
    """A tokenizer with a word for each id: the fixtures have none, and `generate` takes text."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"w{i}": i for i in range(vocabulary)}, "unk_token": "w0"},
    }


def fixture(folder, work):
    """A copy of a fixture with a tokenizer, and with ids of its own beside those that it came with."""
    copy = work / "dense" / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("expected*.safetensors"))
    config = json.loads((copy / "config.json").read_text())
    vocabulary = config["vocab_size"]
    (copy / "tokenizer.json").write_text(json.dumps(words(vocabulary)))
    tokens = min(40, config["max_position_embeddings"])
    ids, expected = random_ids(folder.name, vocabulary, 6, tokens), None
    if (folder / "expected.safetensors").exists():
        expected = load_file(folder / "expected.safetensors")
        given = expected["input_ids"][:, :tokens]
        ids = np.concatenate([given, random_ids(folder.name, vocabulary, 6, given.shape[1])])
    calibration = random_ids(f"{folder.name} calibration", vocabulary, CALIBRATION_TOKENS // ids.shape[1], ids.shape[1])
    prompts = [" ".join(f"w{i}" for i in row[:7]) for row in ids[-3:]]
    return Source(folder.name, copy, ["--model", copy], calibration, ids, prompts, expected)


def demo():
    """The built-in model, on windows of the built-in texts."""
    folder = ROOT / "demo" / "opt-mini"
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def windows(file, count, tokens):
        ids = tokenizer((ROOT / "demo" / file).read_text(encoding="utf-8")[: count * tokens * 8]).input_ids
        return np.array(ids[: count * tokens], dtype=np.int64).reshape(count, tokens)

    calibration, ids = windows("calibration.txt", 16, 128), windows("evaluation.txt", 6, 128)
    return Source("demo (built in)", folder, [], calibration, ids, DEMO_PROMPTS)


def torch_files(source, work):
    """The same model in two files of torch's own format."""
    copy = work / "dense" / f"{source.name} in .bin"
    shutil.copytree(source.folder, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_torch(source.folder / "model.safetensors")
    weight_map = {}
    names = sorted(tensors)
    for part, chosen in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"pytorch_model-{part:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in chosen}, copy / file)
        weight_map.update(dict.fromkeys(chosen, file))
    total = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (copy / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return Source(copy.name, copy, ["--model", copy], source.calibration, source.ids, source.prompts, source.expected)


def sources(args, work):
    folders = args.models or sorted(p for kind in ("models", "generated") for p in (FIXTURES / kind).glob("*"))
    found = [fixture(folder, work) for folder in folders if (folder / "config.json").exists()]
    for source in [s for s in found if s.name == "opt-125m-style"]:
        found.append(torch_files(source, work))
    found.append(demo())
    return [source for source in found if re.search(args.only, source.name)]


# ---------------------------------------------------------------------------------------------------------------------
# The program


class Program:
    def __init__(self, path, device):
        self.path = path
        self.options = ["--format", "json"] + (["--device", device] if device else [])

    def __call__(self, command, *arguments):
        line = [self.path, command, *arguments, *self.options]
        done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
        expect(done.returncode == 0, f"`{command}` exited with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)


# ---------------------------------------------------------------------------------------------------------------------
# transformers


class Messages(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def load(source, folder):
    """The model in f32 with eager attention, and the names of the tensors that had to be widened. Anything said about
    tensors is a mismatch, and so is a warning that the dense folder does not get: those are about its configuration."""
    messages = Messages()
    logger = logging.getLogger("transformers")
    logger.addHandler(messages)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
            )
    finally:
        logger.removeHandler(messages)
    for key, found in info.items():
        expect(not found, f"{key} {found}")
    texts = set(messages.texts) | {str(w.message) for w in warned}
    if source.warnings is None:
        source.warnings = texts
    expect(texts <= source.warnings, f"{texts - source.warnings}")
    return model.eval(), widen(model, folder)


@torch.no_grad()
def widen(model, folder):
    """Some modules keep a narrower dtype than the one asked for, and round what is stored to it. For a comparison in f32
    they get the stored values. Returns their names."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    narrow = {name: t for name, t in tensors.items() if t.is_floating_point() and t.dtype != torch.float32}
    if narrow:
        kept = {name: t for file in folder.glob("*.safetensors") for name, t in load_torch(file).items()}
        for name, tensor in narrow.items():
            tensor.data = kept[name].float().reshape(tensor.shape)
    return sorted(narrow)


@torch.no_grad()
def logits(model, ids):
    return torch.cat([model(torch.from_numpy(row[None]), use_cache=False).logits for row in ids])


def window_nll(logits, ids):
    """Mean cross entropy of each window, in f64 from f32 logits."""
    likelihoods = logits.double().log_softmax(-1)[:, :-1]
    return -likelihoods.gather(-1, torch.from_numpy(ids)[:, 1:, None]).mean((1, 2)).numpy()


def layer_zeros(model):
    """Zeros in the decoder layers' linear maps, as transformers has them in memory."""
    return sum(int((p == 0).sum()) for name, p in model.named_parameters() if OPERATOR.search(name))


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def check_nll(program, source, model, model_arguments, work):
    """Returns the greatest difference of a window's cross entropy."""
    file = work / "ids.safetensors"
    save_file({"input_ids": source.ids}, file)
    outcome = program("eval", *model_arguments, "--data", file)
    ours, theirs = np.array(outcome["window_nll"]), window_nll(logits(model, source.ids), source.ids)
    expect(ours.shape == theirs.shape, f"{len(ours)} windows instead of {len(theirs)}")
    difference = np.abs(ours - theirs).max()
    expect(difference <= NLL, f"cross entropy differs by {difference:.2e}: {ours} instead of {theirs}")
    mean = abs(outcome["mean_nll"] - theirs.mean())
    expect(mean <= NLL, f"mean cross entropy differs by {mean:.2e}")
    return difference


@torch.no_grad()
def check_generation(program, source, model, folder, model_arguments):
    """Returns the number of tokens that are the same."""
    if (folder / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:  # a fixture: some families' own class would not take a tokenizer of words
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    same = 0
    for prompt in source.prompts:
        prompt_ids = tokenizer(prompt, return_tensors="pt").input_ids
        room = model.config.max_position_embeddings - prompt_ids.shape[1]
        count = min(24, room)
        if count <= 0:
            continue
        ours = program("generate", *model_arguments, "--prompt", prompt, "--max-new-tokens", count)
        expect(ours["prompt_tokens"] == prompt_ids.shape[1], f"`{prompt}` has {ours['prompt_tokens']} tokens")
        mask = torch.ones_like(prompt_ids)
        ends = model.config.eos_token_id
        theirs = model.generate(
            prompt_ids, attention_mask=mask, do_sample=False, max_new_tokens=count, pad_token_id=ends
        )[0, prompt_ids.shape[1] :].tolist()
        ends = ends if isinstance(ends, list) else [ends]
        if theirs and theirs[-1] in ends:
            theirs.pop()
        expect(ours["ids"] == theirs, f"after `{prompt}`: {ours['ids']} instead of {theirs}")
        expect(ours["text"] == tokenizer.decode(theirs), f"after `{prompt}`: text `{ours['text']}`")
        same += len(theirs)
    return same


class Stored:
    """A weight file, read without any library: tensor name -> (dtype, shape, bytes)."""

    def __init__(self, path):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        self.metadata = header.pop("__metadata__", {})
        self.tensors = {}
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = entry["data_offsets"]
            expect(first == end, f"{path.name}: a gap or an overlap before `{name}`")
            end = last
            self.tensors[name] = (entry["dtype"], entry["shape"], data[8 + size + first : 8 + size + last])
        expect(8 + size + end == len(data), f"{path.name}: {len(data)} bytes, the header accounts for {8 + size + end}")


def stored(folder):
    """Weight file -> its content."""
    return {path.name: Stored(path) for path in sorted(folder.glob("*.safetensors"))}


def from_torch_files(folder):
    """As `stored`, from torch's files, under the names that the output should use."""
    names = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
    files = {}
    for path in sorted(folder.glob("pytorch_model*.bin")):
        content = Stored.__new__(Stored)
        content.metadata = {}
        content.tensors = {
            name: (names[t.dtype], list(t.shape), t.contiguous().view(torch.uint8).numpy().tobytes())
            for name, t in torch.load(path, weights_only=True).items()
        }
        files[path.name.removeprefix("pytorch_").replace(".bin", ".safetensors")] = content
    return files


def check_files(source, output):
    """Side files are the same, and there are no others but the report."""

    def is_weight(path):
        return path.suffix in (".safetensors", ".bin") or path.name.endswith(".index.json")

    plain = {path.name for path in source.iterdir() if not is_weight(path)}
    found = {path.name for path in output.iterdir() if not is_weight(path)}
    expect(found == plain | {REPORT, PAGE}, f"files: {sorted(found)} instead of {sorted(plain)} and the report")
    for name in plain:
        expect((output / name).read_bytes() == (source / name).read_bytes(), f"{name} was changed")
    index = "model.safetensors.index.json"
    if (source / index).exists():
        expect((output / index).read_bytes() == (source / index).read_bytes(), f"{index} was changed")
    elif (source / "pytorch_model.bin.index.json").exists():
        theirs = json.loads((source / "pytorch_model.bin.index.json").read_text())
        ours = json.loads((output / index).read_text())
        expect(ours["metadata"]["total_size"] == theirs["metadata"]["total_size"], f"{index}: total size")
        expect(set(ours["weight_map"]) == set(theirs["weight_map"]), f"{index}: tensors")
        for name, file in ours["weight_map"].items():
            expect(name in Stored(output / file).tensors, f"{index}: `{name}` is not in {file}")
    else:
        expect(not (output / index).exists(), f"{index} appeared")
    expect(not list(output.glob("*.bin*")), "torch files were copied")


def check_zeros(name, tensor, pattern, reported):
    """A pruned weight has the zeros of the pattern, and as many as the report says."""
    dtype, shape, data = tensor
    number, mask = UNSIGNED[dtype]
    zero = (np.frombuffer(data, number) & mask == 0).reshape(shape)
    if isinstance(pattern, tuple):
        keep, group = pattern
        per_group = zero.reshape(shape[0], -1, group).sum(-1)
        expect(per_group.min() >= group - keep, f"{name}: a group of {group} has {per_group.min()} zeros")
    else:
        needed = int(pattern * zero.size)
        expect(zero.sum() >= needed, f"{name}: {zero.sum()} zeros instead of {needed}")
    expect(zero.sum() == reported["zeros"], f"{name}: {zero.sum()} zeros, {reported['zeros']} reported")
    expect(shape == reported["shape"], f"{name}: {reported['shape']} reported")
    return int(zero.sum())


def check_structure(source, output, pattern):
    """Same files, names, shapes, dtypes and bytes, but for the pruned weights. Returns zeros and their share."""
    check_files(source, output)
    before = stored(source) or from_torch_files(source)
    after = stored(output)
    expect(list(after) == list(before), f"weight files: {list(after)} instead of {list(before)}")
    report = json.loads((output / REPORT).read_text())
    reported = {f"{operator['name']}.weight": operator for operator in report["operators"]}
    zeros = total = 0
    for file in before:
        dense, pruned = before[file], after[file]
        expect(pruned.metadata == {**dense.metadata, "format": "pt"}, f"{file}: metadata {pruned.metadata}")
        expect(set(pruned.tensors) == set(dense.tensors), f"{file}: other tensors")
        for name, (dtype, shape, data) in dense.tensors.items():
            tensor = pruned.tensors[name]
            expect(tensor[:2] == (dtype, shape), f"{name}: {tensor[:2]} instead of {(dtype, shape)}")
            if OPERATOR.search(name):
                expect(name in reported, f"{name} is not in the report")
                zeros += check_zeros(name, tensor, pattern, reported.pop(name))
                total += int(np.prod(shape))
            else:
                expect(tensor[2] == data, f"{name} was changed")
    expect(not reported, f"only in the report: {sorted(reported)}")
    expect(abs(report["sparsity"] - zeros / total) < 1e-12, f"sparsity {report['sparsity']} was reported")
    return zeros, zeros / total


def check_expected(source, model):
    """The fixture's stored logits are still those of the installed transformers."""
    expected = torch.from_numpy(source.expected["logits"])
    difference = (logits(model, source.expected["input_ids"]) - expected).abs().max().item()
    expect(difference <= LOGITS, f"logits differ from the fixture's by {difference:.2e}")
    return difference


# ---------------------------------------------------------------------------------------------------------------------
# The run


class Row:
    """A line of the table: each check's outcome, or `WRONG`."""

    def __init__(self, model, variant):
        self.cells = {"model": model, "variant": variant}
        self.wrong, self.notes = [], []

    def __call__(self, column, check, show="{}".format):
        try:
            outcome = check()
        except Exception as error:  # noqa: BLE001 - anything that goes wrong is a finding, and the rest still runs
            kind = "" if isinstance(error, Wrong) else f"{type(error).__name__}: "
            self.wrong.append(f"{self.cells['model']}, {self.cells['variant']}, {column}: {kind}{error}")
            self.cells[column] = "WRONG"
            return None
        self.cells[column] = "ok" if outcome is None else show(outcome)
        return outcome


def check_variant(program, source, folder, model_arguments, row, work):
    """What dense and pruned models have in common."""
    loaded = row("load", lambda: load(source, folder), lambda found: "widen" if found[1] else "ok")
    if loaded is None:
        return None
    model, widened = loaded
    if widened:
        row.notes.append(f"{source.name}: transformers rounds {', '.join(widened)}")
    row("nll diff", lambda: check_nll(program, source, model, model_arguments, work), "{:.1e}".format)
    row("generated", lambda: check_generation(program, source, model, folder, model_arguments), "{} same".format)
    return model


def check_source(program, source, work):
    digest = fingerprint(source.folder)
    row = Row(source.name, "dense")
    model = check_variant(program, source, source.folder, source.arguments, row, work)
    if model is not None and source.expected is not None:
        row("logits diff", lambda: check_expected(source, model), "{:.1e}".format)
    if source.warnings:
        row.notes.append(f"{source.name}: about the dense model, transformers says: {' '.join(source.warnings)}")
    yield row
    calibration = work / "calibration.safetensors"
    save_file({"input_ids": source.calibration}, calibration)
    for variant, (options, pattern) in VARIANTS.items():
        row = Row(source.name, variant)
        output = work / "pruned" / source.name / variant.replace(":", "of")
        started = time.monotonic()
        run = [*source.arguments, "--output", output, "--calibration", calibration, *options]
        if row("prune", lambda: program("prune", *run), lambda _: f"{time.monotonic() - started:.1f} s") is not None:
            found = row("zeros", lambda: check_structure(source.folder, output, pattern), lambda f: f"{f[1]:.4f}")
            model = check_variant(program, source, output, ["--model", output], row, work)
            if model is not None and found is not None:
                row("in memory", lambda: same_zeros(model, found[0]))
        row("tidy", lambda: check_tidy(source, output, digest))
        yield row
    yield from check_shrunk(program, source, calibration, work)


def check_shrunk(program, source, calibration, work):
    """Structured pruning: a smaller model of the same family, that transformers takes as it is."""
    family = json.loads((source.folder / "config.json").read_text())["model_type"]
    for variant, options in SHRUNK.items():
        if family == "opt" and "heads" in options[1]:
            continue
        row = Row(source.name, variant)
        output = work / "shrunk" / source.name / variant.replace(" ", "-")
        started = time.monotonic()
        run = [*source.arguments, "--output", output, "--calibration", calibration, *options]
        if row("prune", lambda: program("shrink", *run), lambda _: f"{time.monotonic() - started:.1f} s") is not None:
            model = check_variant(program, source, output, ["--model", output], row, work)
            if model is not None:
                row("logits diff", lambda: check_sizes(model, output))
        yield row


def check_sizes(model, output):
    """As many parameters as the report says."""
    report = json.loads((output / "pruning_report.json").read_text())
    found = sum(p.numel() for p in model.parameters())
    expect(found == report["parameters_after"], f"{found} parameters instead of {report['parameters_after']}")


def check_tidy(source, output, digest):
    """Nothing is left beside the outputs, and the source is as it was."""
    known = {variant.replace(":", "of") for variant in VARIANTS}
    left = {path.name for path in output.parent.glob("*")} - known
    expect(not left, f"left behind: {left}")
    expect(fingerprint(source.folder) == digest, "the source was changed")


def same_zeros(model, zeros):
    found = layer_zeros(model)
    expect(found == zeros, f"{found} zeros in memory, {zeros} in the files")


def fingerprint(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


COLUMNS = ["model", "variant", "prune", "zeros", "load", "nll diff", "logits diff", "generated", "in memory", "tidy"]
WIDTHS = [22, 14, 7, 7, 6, 9, 12, 10, 10, 6]


def line(cells):
    return " ".join(f"{cells.get(c, '-'):<{w}}" for c, w in zip(COLUMNS, WIDTHS)).rstrip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, type=lambda p: Path(p).resolve(), help="the fista-pruner binary")
    parser.add_argument("--only", default="", metavar="REGEX", help="only models whose name matches")
    parser.add_argument("--device", help="passed on to the program")
    parser.add_argument("--work", type=Path, help="an empty or new folder for the outputs, kept (default: temporary)")
    parser.add_argument("--models", nargs="+", type=Path, metavar="DIR", help="these folders instead of the fixtures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        program = Program(args.program, args.device)
        chosen = sources(args, work)
        if not chosen:
            sys.exit("no model matches")
        print(f"transformers {transformers.__version__}, torch {torch.__version__}\n")
        print(line({c: c for c in COLUMNS}))
        rows, wrong, notes = 0, [], {}
        for source in chosen:
            for row in check_source(program, source, work):
                print(line(row.cells), flush=True)
                rows += 1
                wrong += row.wrong
                notes.update(dict.fromkeys(row.notes))
    print(f"\n{len(chosen)} models, {rows} rows, {len(wrong)} mismatches")
    for text in wrong:
        print(f"- {text}")
    for text in notes:
        print(f"note: {text}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
