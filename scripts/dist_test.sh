#!/usr/bin/env bash
# Test on several GPUs (or CPU processes): scripts/dist_test.sh <processes on this machine> <option file> [arguments]
# Several machines: as for dist_train.sh.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 <processes> <option file> [arguments of test.py]" >&2; exit 2; }
cd "$(dirname "$0")/.."
exec python -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$1" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-4321}" \
  basicsr/test.py -opt "$2" --launcher pytorch "${@:3}"
