#!/usr/bin/env bash
# Train on several GPUs (or CPU processes): scripts/dist_train.sh <processes on this machine> <option file> [arguments]
# Several machines: the same command on each, with NNODES, NODE_RANK (0 … NNODES-1), MASTER_ADDR (that of rank 0) and
# PORT set. MAX_RESTARTS=n lets torchrun restart a run that died, which then continues from its last checkpoint.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 <processes> <option file> [arguments of train.py]" >&2; exit 2; }
cd "$(dirname "$0")/.."
exec python -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$1" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-4321}" --max_restarts="${MAX_RESTARTS:-0}" \
  basicsr/train.py -opt "$2" --launcher pytorch "${@:3}"
