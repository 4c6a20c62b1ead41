#!/bin/bash
# Train under SLURM; the job may be requeued as often as it likes.
#
#   sbatch --nodes 2 --gpus-per-node 8 slurm.sh simcrop-large /scratch/run [--set a.b=c ...]
#
#SBATCH --job-name=simcrop
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@180
#SBATCH --output=%x-%j.log
# Three minutes before the end of its time every process gets SIGTERM: it finishes its step, saves
# and ends. A job that is requeued, or submitted again with the same line, goes on from there.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: sbatch [options] slurm.sh RECIPE OUT [--set a.b=c ...]" >&2
    exit 2
fi
recipe=$1
out=$2
shift 2
PYTHON=${PYTHON:-python}
gpus=${GPUS:-${SLURM_GPUS_ON_NODE:-1}}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((29000 + SLURM_JOB_ID % 1000))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-8} / gpus))}
# One launcher on each computer, which starts a process for each of its GPUs.
srun --kill-on-bad-exit=1 "$PYTHON" -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$gpus" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:$port" \
    -m simcrop_training run "$recipe" --out "$out" --resume \
    --set run.nodes="$SLURM_JOB_NUM_NODES" --set run.devices="$gpus" "$@"
