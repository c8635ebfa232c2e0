#!/usr/bin/env bash
# Builds the program, makes the Python environment if it is not there, and runs check.py. See README.md.
# usage: tests/interop/run.sh [options of check.py]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
venv=${FISTA_PRUNER_INTEROP_VENV:-$target/interop-venv}
program=${FISTA_PRUNER_BIN:-}

if [ -z "$program" ]; then
    cargo build --release --manifest-path "$root/Cargo.toml" --package fista-pruner
    program=$target/release/fista-pruner
fi
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
has_packages='import sys
from importlib.util import find_spec
sys.exit(any(find_spec(name) is None for name in ("numpy", "safetensors", "torch", "transformers")))'
"$venv/bin/python" -c "$has_packages" || "$venv/bin/python" -m pip install --quiet -r "$here/requirements.txt"
exec "$venv/bin/python" "$here/check.py" --program "$program" "$@"
