#!/bin/sh
# Train on several computers without a scheduler: run this on each of them.
#
#   NODES=2 NODE=0 HEAD=node-a GPUS=8 sh torchrun.sh simcrop-large /scratch/run [--set a.b=c ...]
#
# NODES computers with GPUS processes each; NODE numbers this one from 0; HEAD is the first one's
# address. OUT lies on a disk that all see. The run goes on where it was (--resume).
set -eu
NODES=${NODES:-1}
NODE=${NODE:-0}
HEAD=${HEAD:-127.0.0.1}
PORT=${PORT:-29400}
GPUS=${GPUS:-1}
PYTHON=${PYTHON:-python}
if [ $# -lt 2 ]; then
    echo "usage: [NODES=n NODE=i HEAD=address GPUS=g] sh torchrun.sh RECIPE OUT [options]" >&2
    exit 2
fi
recipe=$1
out=$2
shift 2
exec "$PYTHON" -m torch.distributed.run \
    --nnodes "$NODES" --node-rank "$NODE" --master-addr "$HEAD" --master-port "$PORT" \
    --nproc-per-node "$GPUS" \
    -m simcrop_training run "$recipe" --out "$out" --resume \
    --set run.nodes="$NODES" --set run.devices="$GPUS" "$@"
