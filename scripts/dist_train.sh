#!/usr/bin/env bash
# Train on several GPUs (or CPU processes) of this machine: scripts/dist_train.sh <processes> <option file> [arguments]
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 <processes> <option file> [arguments of train.py]" >&2; exit 2; }
cd "$(dirname "$0")/.."
exec python -m torch.distributed.run --nproc_per_node="$1" --master_port="${PORT:-4321}" \
  basicsr/train.py -opt "$2" --launcher pytorch "${@:3}"
