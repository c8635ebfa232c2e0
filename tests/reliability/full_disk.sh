#!/usr/bin/env bash
# Lets the disk become full at random places: a file system in memory of random size, with an earlier output on it. A command that
# fails must say so, leave the earlier output as it was, and nothing else, but for the finished steps of `recover --checkpoints`; one that
# does not must give the same bytes as elsewhere.
#
#   tests/reliability/full_disk.sh path/to/fista-pruner [times] [seed]
#
# By default 50 times, over all commands that write, all with the demo model. Needs root, for the mounts.
set -euo pipefail
program=$(realpath "$1")
dense=$(realpath "$(dirname "$0")/../../demo/opt-mini")
times=${2:-50}
RANDOM=${3:-1}
dir=$(mktemp -d)
disk=$dir/disk
mkdir "$disk" "$dir/elsewhere"
trap 'umount "$disk" 2>/dev/null || true; rm -rf "$dir"' EXIT
text="--samples 8 --seq-len 64"
common="--device flex --progress none"
"$program" prune $text --preset fast $common --output "$dir/pruned" >/dev/null
"$program" mask export --model "$dir/pruned" --output "$dir/mask.safetensors" >/dev/null
"$program" pack --model "$dir/pruned" --output "$dir/packed" >/dev/null

# What is written to `out`, in place of the earlier one.
command_of() {
    local recover="recover --model $dir/pruned --calibration demo $text $common --output out --overwrite --method"
    case $1 in
    prune) echo "prune $text --preset fast $common --output out --overwrite" ;;
    statistics) echo "prune $text --preset fast $common --output out --overwrite --save-statistics saved" ;;
    block) echo "$recover block --dense $dense --epochs 1 --checkpoints steps" ;;
    mezo) echo "$recover mezo --steps 2" ;;
    pack) echo "pack --model $dir/pruned --output out --overwrite" ;;
    unpack) echo "unpack --model $dir/packed --output out --overwrite" ;;
    export) echo "mask export --model $dir/pruned --output mask --overwrite" ;;
    apply) echo "mask apply --model $dense --mask $dir/mask.safetensors --output out --overwrite" ;;
    report) echo "report --input $dir/pruned --output page.html --overwrite" ;;
    esac
}

# Names and sums of all there is; reports have times in them, and only their names count.
sums() {
    (cd "$1" && find . -mindepth 1 | sort | while read -r file; do
        if [ -d "$file" ] || [[ $2 = names && $file = *report* ]]; then echo "$file"; else sha256sum "$file"; fi
    done)
}

# What is there before: an earlier output, a mask, a page.
fill() {
    mkdir "$1/out" && echo '{"model_type": "llama"}' >"$1/out/config.json" && echo weights >"$1/out/model.safetensors"
    echo mask >"$1/mask" && echo '<!doctype html>' >"$1/page.html"
}

jobs=(prune statistics block mezo pack unpack export apply report)
declare -A expected bytes
for job in "${jobs[@]}"; do
    mkdir "$dir/elsewhere/$job" && cd "$dir/elsewhere/$job" && fill .
    "$program" $(command_of "$job") >/dev/null 2>log || { cat log; exit 1; }
    rm log
    expected[$job]=$(sums . names)
    bytes[$job]=$(du -s --block-size=1 . | cut -f1)
done

passed=0 full=0
for ((try = 0; try < times; try++)); do
    job=${jobs[$((try % ${#jobs[@]}))]}
    # Enough for what is there, and up to a quarter more than the command leaves.
    size=$(awk -v b="${bytes[$job]}" -v r="$RANDOM" 'BEGIN { printf "%d", 40960 + b * 1.25 * r / 32768 }')
    mount -t tmpfs -o "size=$size" tmpfs "$disk"
    cd "$disk"
    fill .
    before=$(sums . all)
    code=0
    "$program" $(command_of "$job") >/dev/null 2>"$dir/log" || code=$?
    if [ "$code" = 0 ]; then
        if [ "$(sums . names)" = "${expected[$job]}" ]; then passed=$((passed + 1)); else echo "$job, $size bytes: other files"; fi
    else
        full=$((full + 1))
        # What the next try goes on from stays; half a file may not be among it.
        [ ! -d steps ] || rm -f steps/recovery_* && rmdir steps 2>/dev/null || true
        if [ "$code" = 1 ] && grep -q '^error: .*space left' "$dir/log" && [ "$(sums . all)" = "$before" ]; then
            passed=$((passed + 1))
        else
            echo "$job, $size bytes, exit code $code:"
            cat "$dir/log"
            ls -AR .
        fi
    fi
    cd "$dir"
    umount "$disk"
done
echo "$passed of $times runs lost nothing and left nothing half-done; the disk became full in $full of them"
[ "$passed" = "$times" ]
