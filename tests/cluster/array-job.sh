#!/usr/bin/env bash
# The array job of docs/cluster.md, really run: by a Slurm of one node that this script starts in a temporary folder, or, where
# that cannot be, as processes. What `merge` makes of the parts must be the bytes of an undivided run.
#
#   tests/cluster/array-job.sh path/to/fista-pruner
#
# Slurm needs root, and slurmctld, slurmd, sbatch and munged (Debian: slurm-wlm, munge).
set -euo pipefail
program=$(realpath "$1")
dir=$(mktemp -d)
shards=3
settings="--samples 8 --seq-len 128 --preset fast --device flex"
cd "$dir"

stop() {
    for name in slurmd slurmctld munged; do
        [ -f "$dir/$name.pid" ] || continue
        pid=$(cat "$dir/$name.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    done
    rm -rf "$dir"
}
trap stop EXIT

# What an array's task runs; K is its number.
cat > shard.sbatch <<JOB
#!/bin/sh
#SBATCH --job-name=prune --array=1-$shards
set -e
exec "$program" prune $settings --output "$dir/parts" --shard "\${SLURM_ARRAY_TASK_ID:-\$K}/$shards" --resume --progress plain
JOB

start_slurm() {
    local tool host
    [ "$(id -u)" = 0 ] || { echo "not root"; return 1; }
    for tool in munged slurmctld slurmd sbatch squeue sinfo; do
        command -v "$tool" >/dev/null || { echo "no $tool"; return 1; }
    done
    host=$(hostname -s)
    chmod 755 "$dir"
    mkdir state spool munge
    head -c 1024 /dev/urandom > munge/key
    chmod 600 munge/key
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" || return 1
    cat > slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
CONF
    export SLURM_CONF=$dir/slurm.conf
    slurmctld || return 1
    slurmd || return 1
    for _ in $(seq 60); do
        sinfo -h -o %T 2>/dev/null | grep -q idle && return 0
        sleep 1
    done
    tail -n 20 slurmctld.log slurmd.log
    return 1
}

"$program" prune $settings --output whole -q > /dev/null
if start_slurm; then
    job=$(sbatch --parsable --output="$dir/shard-%a.log" shard.sbatch)
    echo "Slurm $(sbatch --version) runs array job $job"
    for _ in $(seq 600); do
        [ -z "$(squeue -h -j "$job" 2>/dev/null)" ] && break
        sleep 1
    done
    cat shard-*.log
else
    echo "Slurm cannot run here; the same shards as processes"
    for K in $(seq $shards); do
        K=$K sh shard.sbatch
    done
fi
"$program" merge --parts parts --output merged -q
cmp whole/model.safetensors merged/model.safetensors
"$program" verify --model merged > /dev/null
echo "the $shards parts make the checkpoint of one run"
