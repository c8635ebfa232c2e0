#!/usr/bin/env bash
# Tests and measures fista-pruner on a machine with a GPU, in less than nine minutes. It needs the folder that `build.sh` packed, the GPU's
# driver and, for CUDA, libnvrtc and the CUDA headers. It needs no Rust and no network.
#
#   accept.sh [--device cuda,vulkan] [--out FOLDER] [--small] [STEP ...]
#
# Steps: start conformance demo products benches layer recover; all of them by default. A step that was named is run again; the results of
# the others stay. `--small` takes tiny sizes and few operations, for a driver that computes on the CPU.
# The results are in FOLDER: results.json, results.txt, and a log for each step.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
devices=cuda,vulkan
out=accept-results
small=
steps=()
while [ $# -gt 0 ]; do
    case $1 in
    --device) devices=$2; shift ;;
    --out) out=$2; shift ;;
    --small) small=1 ;;
    start | conformance | demo | products | benches | layer | recover) steps+=("$1") ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
[ ${#steps[@]} -gt 0 ] || steps=(start conformance demo products benches layer recover)
mkdir -p "$out"
out=$(cd "$out" && pwd)
first=${devices%%,*}
program=$here/fista-pruner

if [ -n "$small" ]; then
    export FISTA_PRUNER_BENCH_HIDDEN=256 FISTA_PRUNER_BENCH_TOKENS=128 FISTA_PRUNER_BENCH_WIDTHS=256
    export FISTA_PRUNER_BENCH_SAMPLES=4 FISTA_PRUNER_BENCH_SEQ_LEN=32
    demo=(--samples 8 --seq-len 128 --eval-seq-len 128 --max-windows 2 --targets layers.0)
    bench=(--sample-count 1)
    tests=(sums)
    patience=10
    presets=(fast)
else
    export FISTA_PRUNER_BENCH_SCALE=1 FISTA_PRUNER_BENCH_WIDTHS=4096,14336
    export FISTA_PRUNER_BENCH_SAMPLES=128 FISTA_PRUNER_BENCH_SEQ_LEN=2048
    demo=(--samples 64 --seq-len 256 --max-windows 8)
    bench=(--sample-count 5 --max-time 2)
    tests=()
    patience=1
    presets=(fast best)
fi
export FISTA_PRUNER_BENCH_DEVICE=$first

# A result: a name and a number or word, kept for the tables.
result() { printf '%s\t%s\n' "$1" "$2" >>"$out/$step.tsv"; }

# Seconds since the clock of $1, which is what `now` gave.
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }

# The first number after each place where "NAME" stands in a JSON file, a line each.
numbers() { tr -d ' \n' <"$2" | grep -o "\"$1\":[-0-9.eE+]*" | cut -d: -f2; }

# Runs a command, at most so many seconds; its output goes into the step's log. Whether it worked is a result of that name.
bounded() {
    local name=$1 limit=$(($2 * patience)) from code
    shift 2
    from=$(now)
    timeout -k 5 "$limit" "$@" >>"$out/$step.log" 2>&1
    code=$?
    result "$name seconds" "$(since "$from")"
    case $code in
    0) result "$name" passed ;;
    124 | 137) result "$name" "stopped after $limit s" ;;
    *) result "$name" "failed ($code)" ;;
    esac
    return $code
}

# As `bounded`; what the program prints as JSON goes into $out/FILE.json.
json() {
    local file=$1 name=$2 limit=$3
    shift 3
    bounded "$name" "$limit" bash -c 'to=$1; shift; exec "$@" >"$to"' - "$out/$file.json" "$program" "$@" --format json --progress none
}

# Memory that a CUDA device has in use at most while a command runs, in MiB.
watched() {
    local name=$1 watcher
    shift
    if [[ $first == cuda* ]] && command -v nvidia-smi >/dev/null; then
        nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 200 >"$out/memory.txt" 2>/dev/null &
        watcher=$!
        "$@"
        kill "$watcher" 2>/dev/null
        wait "$watcher" 2>/dev/null
        result "$name peak MiB" "$(sort -n "$out/memory.txt" | tail -1)"
    else
        "$@"
    fi
}

# The program begins: twice, as the first start compiles kernels.
start() {
    command -v nvidia-smi >/dev/null && result gpu "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -1)"
    result version "$("$program" --version)"
    local device
    for device in ${devices//,/ }; do
        json "start-$device" "$device first" 60 eval --device "$device" --seq-len 64 --max-windows 1 || continue
        json "start-$device" "$device again" 30 eval --device "$device" --seq-len 64 --max-windows 1
    done
}

# Each operation of each device against the CPU's, and memory that is not there.
conformance() {
    FISTA_PRUNER_DEVICES=$devices bounded devices 90 "$here/devices" --test-threads 1 "${tests[@]}"
    FISTA_PRUNER_DEVICES=$devices bounded failure 30 "$here/failure"
    result "tests passed" "$(grep -o '[0-9]* passed' "$out/$step.log" | awk '{ n += $1 } END { print n + 0 }')"
}

# Whether two numbers differ by less than 1 %.
close() { awk -v a="$1" -v b="$2" 'BEGIN { d = a / b - 1; print (d < 0.01 && d > -0.01) ? "yes" : "no" }'; }

# The demo on the CPU and on each device: perplexity and errors within 1 % of the CPU's, and the same bytes twice.
demo() {
    local device expected found error expected_error
    rm -rf "$out"/demo-*
    for device in flex $(tr , ' ' <<<"$devices" | sed 's/\<flex\>//'); do
        json "demo-$device" "$device" 60 prune --preset fast "${demo[@]}" --device "$device" --output "$out/demo-$device" || continue
        found=$(numbers perplexity "$out/demo-$device.json" | tail -1)
        error=$(numbers relative_error "$out/demo-$device.json" | awk '{ sum += $1 } END { print sum / NR }')
        result "$device perplexity" "$found"
        result "$device mean relative error" "$error"
        [ "$device" = flex ] && { expected=$found expected_error=$error; continue; }
        result "$device perplexity within 1 % of the CPU's" "$(close "$found" "$expected")"
        result "$device error within 1 % of the CPU's" "$(close "$error" "$expected_error")"
        json "demo-$device-2" "$device again" 60 prune --preset fast "${demo[@]}" --device "$device" --output "$out/demo-$device-2" || continue
        cmp -s "$out/demo-$device/model.safetensors" "$out/demo-$device-2/model.safetensors" &&
            result "$device same bytes twice" yes || result "$device same bytes twice" no
    done
}

# Lines of the benches' table as results: GFLOP/s, and the share of the f32 product's rate.
table() {
    awk '/^on one device, fastest/ { on = 1; next } on && NF { print }' "$out/$step.log" |
        sed 's/^\(.\{24\}\)\(.\{34\}\) *\([^ ]*\) *\([^ ]*\) *\([^ ]*\) *\([^ ]*\)$/\1|\2|\4|\6/' |
        while IFS='|' read -r name shape rate share; do
            name=$(echo $name) shape=$(echo $shape)
            result "$name, $shape, GFLOP/s" "$rate"
            result "$name, $shape, share" "$share"
        done
}

products() { bounded products 40 "$here/kernels" --bench "${bench[@]}" product_ && table; }

benches() {
    bounded benches 120 "$here/kernels" --bench "${bench[@]}" 'gram_update|drift_update|fista_iteration|polish|l0_step' && table
}

# One layer of LLaMA-3-8B's shape with random weights: the plan, then both presets.
layer() {
    rm -rf "$out"/layer*
    FISTA_PRUNER_BENCH_WRITE=$out/layer bounded write 60 "$here/kernels" || return
    local preset
    for preset in "${presets[@]}"; do
        local line=(prune --model "$out/layer" --calibration "$out/layer/tokens.safetensors" --sparsity 2:4 --preset $preset
            --device "$first" --output "$out/layer-$preset")
        json "plan-$preset" "plan $preset" 30 "${line[@]}" --dry-run || continue
        result "$preset planned MiB" "$(numbers device_bytes "$out/plan-$preset.json" | awk '{ printf "%d", $1 / 1048576 }')"
        result "$preset planned seconds" "$(numbers total "$out/plan-$preset.json" | head -1)"
        watched "$preset" json "layer-$preset" "$preset" 150 "${line[@]}"
    done
}

# Distillation of that layer's weights.
recover() {
    local pruned=$out/layer-${presets[-1]}
    [ -d "$pruned" ] || { result recover "skipped: the step layer gave no model"; return; }
    rm -rf "$out/recovered" "$out/few"
    # A file of token ids is used whole.
    FISTA_PRUNER_BENCH_SAMPLES=4 FISTA_PRUNER_BENCH_WRITE=$out/few bounded write 60 "$here/kernels" || return
    watched recover json recovered recover 90 recover --method block --model "$pruned" --dense "$out/layer" \
        --calibration "$out/few/tokens.safetensors" --epochs 1 --device "$first" --output "$out/recovered"
}

failed=0
began=$(now)
for step in "${steps[@]}"; do
    : >"$out/$step.log"
    : >"$out/$step.tsv"
    echo "== $step"
    "$step"
    cat "$out/$step.tsv"
    grep -qE $'\t(failed|stopped|no$)' "$out/$step.tsv" && failed=1
done

# All results, also of steps that ran before.
{
    for step in start conformance demo products benches layer recover; do
        [ -f "$out/$step.tsv" ] && sed "s/^/$step\t/" "$out/$step.tsv"
    done
} >"$out/all.tsv"
awk -F'\t' '{ printf "%-12s %-58s %s\n", $1, $2, $3 }' "$out/all.tsv" >"$out/results.txt"
awk -F'\t' '
    function text(s) { gsub(/["\\]/, "\\\\&", s); return "\"" s "\"" }
    BEGIN { printf "{" }
    {
        if ($1 != step) { printf "%s\n  %s: {", step == "" ? "" : "\n  },", text($1); step = $1; comma = "" }
        value = $3 ~ /^-?[0-9]+(\.[0-9]+)?$/ ? $3 : text($3)
        printf "%s\n    %s: %s", comma, text($2), value
        comma = ","
    }
    END { print step == "" ? "}" : "\n  }\n}" }' "$out/all.tsv" >"$out/results.json"
rm -f "$out/all.tsv" "$out/memory.txt"
echo "$(since "$began") s; all results are in $out/results.json and results.txt"
exit $failed
