#!/usr/bin/env bash
# Builds what `accept.sh` needs on a machine with a GPU, and packs it into one file: the program, the device tests, the benches and
# `accept.sh` itself. Run it where Rust is; no GPU is needed here.
#
#   scripts/gpu/build.sh [FILE.tar.xz | FOLDER]
#
# A folder is filled and not packed. FISTA_PRUNER_GPU_FEATURES names the devices, `cuda,vulkan` by default; FISTA_PRUNER_GPU_CARGO takes
# the place of cargo's arguments.
set -euo pipefail
cd "$(dirname "$0")/../.."

features=${FISTA_PRUNER_GPU_FEATURES:-cuda,vulkan}
out=$(realpath -m "${1:-fista-pruner-gpu.tar.xz}")
export CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-12080}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/fista-pruner-gpu"

# The name of a built program, from what cargo says of it.
built() {
    # shellcheck disable=SC2086 # several arguments
    cargo "$@" ${FISTA_PRUNER_GPU_CARGO:---release --features "$features"} --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

programs=$(
    built build --bin fista-pruner
    built test --no-run --test devices --test failure
    built build --bench kernels
)
for program in $programs; do
    name=$(basename "$program")
    # A test's name ends in a number of cargo's.
    cp "$program" "$folder/fista-pruner-gpu/${name%-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]*}"
done
strip "$folder"/fista-pruner-gpu/*
cp scripts/gpu/accept.sh "$folder/fista-pruner-gpu/"
ls -l "$folder/fista-pruner-gpu"
case $out in
*.xz)
    # The programs share most of their code: a window that spans all of them finds it.
    tar -C "$folder" -c fista-pruner-gpu | xz -T1 --lzma2=preset=6,dict=256MiB >"$out.new"
    mv "$out.new" "$out"
    bytes=$(wc -c <"$out")
    echo "$out: $bytes bytes"
    [ "$bytes" -lt 60000000 ]
    ;;
*)
    mkdir -p "$out"
    cp "$folder"/fista-pruner-gpu/* "$out/"
    ;;
esac
