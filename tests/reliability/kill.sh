#!/usr/bin/env bash
# Kills the program at random moments (SIGKILL), starts the same command again, and compares what comes out with what comes out
# of a run that was not killed: the same files with the same bytes, and nothing else in the folder but what the second run names.
#
#   tests/reliability/kill.sh path/to/fista-pruner [kills] [seed]
#
# By default 200 kills, spread over pruning, pruning in parts with merge, the four ways of recovery, and packing, all of the demo
# model. It takes about ten minutes.
set -euo pipefail
program=$(realpath "$1")
dense=$(realpath "$(dirname "$0")/../../demo/opt-mini")
kills=${2:-200}
RANDOM=${3:-1}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
text="--samples 8 --seq-len 64"
common="--device flex --progress none"

# What is needed to begin with: a pruned model.
cd "$dir"
"$program" prune $text --preset fast $common --output pruned >/dev/null

# The commands of a job, one a line, in the order in which they are run.
commands() {
    local recover="recover --model $dir/pruned --calibration demo $text $common --checkpoints steps --output out --method"
    case $1 in
    prune) echo "prune $text --preset fast $common --output out --resume" ;;
    parts)
        for part in 1/2 2/2; do
            echo "prune $text --preset fast $common --shard $part --output parts --resume"
        done
        echo "merge --parts parts --output out"
        ;;
    block) echo "$recover block --dense $dense --epochs 1" ;;
    distill) echo "$recover distill --dense $dense --epochs 1" ;;
    spp) echo "$recover spp --epochs 1" ;;
    mezo | subzero) echo "$recover $1 --steps 12" ;;
    pack) echo "pack --model $dir/pruned --output out" ;;
    esac
}

# Runs the commands that are not done yet. A part that is there already is done.
all() {
    local command
    while read -r command; do
        case $command in
        *"--shard 1/2"*) [ -e parts/part-001-of-002 ] && continue ;;
        *"--shard 2/2"*) [ -e parts/part-002-of-002 ] && continue ;;
        esac
        "$program" $command >/dev/null 2>>log || return 1
    done < <(commands "$1")
}

# The files of the result with their sums; reports have times in them, and only their names count.
sums() {
    (cd "$1" && find . -type f | sort | while read -r file; do
        case $file in
        *report*) echo "$file" ;;
        *) sha256sum "$file" ;;
        esac
    done)
}

jobs=(prune parts block distill spp mezo subzero pack)
declare -A expected seconds
for job in "${jobs[@]}"; do
    mkdir "$dir/whole-$job" && cd "$dir/whole-$job"
    begun=$(date +%s%N)
    all "$job" || { cat log; exit 1; }
    seconds[$job]=$((($(date +%s%N) - begun) / 1000000))
    expected[$job]=$(sums out)
    echo "$job takes ${seconds[$job]} ms"
done

passed=0 killed=0 left=0 tries=0
declare -A of
while [ "$killed" -lt "$kills" ]; do
    job=${jobs[$((tries % ${#jobs[@]}))]}
    tries=$((tries + 1))
    rm -rf "$dir/try" && mkdir "$dir/try" && cd "$dir/try"
    export -f all commands
    export program dir text common dense
    setsid bash -c 'all "$0"' "$job" &
    pid=$!
    sleep "$(awk -v ms="${seconds[$job]}" -v r="$RANDOM" 'BEGIN { printf "%.4f", ms / 1000 * r / 32768 }')"
    # The whole group at once: the program, and the shell that would start the next command.
    kill -KILL -- "-$pid" 2>/dev/null || { wait "$pid" || true; continue; }
    wait "$pid" 2>/dev/null || true
    [ -e out ] && [ "$(sums out)" = "${expected[$job]}" ] && continue
    killed=$((killed + 1))
    of[$job]=$((${of[$job]:-0} + 1))
    if [ -e out ]; then
        echo "$job: something half-done is there under the name of the output"
        continue
    fi
    rm -f log
    if ! all "$job"; then
        echo "$job: the second run failed"
        cat log
        continue
    fi
    ok=1
    [ "$(sums out)" = "${expected[$job]}" ] || { ok=0; echo "$job: other bytes"; }
    for entry in * .[!.]*; do
        case $entry in
        out | log | '.[!.]*') ;;
        parts)
            # Parts stay; nothing else may be among them.
            others=$(ls -A parts | grep -v '^part-00[12]-of-002$' || true)
            [ -z "$others" ] || grep -qF "$others" log || { ok=0; echo "$job: $others in parts"; }
            ;;
        *)
            if grep -qF "$entry" log; then left=$((left + 1)); else ok=0; echo "$job: $entry is there"; fi
            ;;
        esac
    done
    passed=$((passed + ok))
done
for job in "${jobs[@]}"; do printf '%s %s, ' "$job" "${of[$job]:-0}"; done
echo
echo "$passed of $killed kills left nothing wrong; $left folders were left and named by the next run"
[ "$passed" = "$killed" ]
