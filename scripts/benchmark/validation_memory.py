"""Peak memory and time of restoring one 2K image (LR 1020×678, EDSR-M ×2), ours against PyPI's basicsr 1.4.2.

    python scripts/benchmark/validation_memory.py --reference FOLDER

Each row is measured in a separate process; the memory of importing and building is subtracted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import torch
from _reference import load_reference

from basicsr.archs import build_network
from basicsr.engine.restore.restorer import Restorer, RestoreSettings

EDSR = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 16, "upscale": 2}
ROWS = {
    "basicsr 1.4.2, whole": None,
    "ours, whole": RestoreSettings(),
    "ours, tile: 256": RestoreSettings(tile=256),
    "ours, tile: 128": RestoreSettings(tile=128),
}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@torch.no_grad()
def measure(row: str, reference: str) -> dict:
    """GiB above the start, and seconds."""
    if ROWS[row] is None:
        module = load_reference(reference, ["basicsr.archs.edsr_arch"])["basicsr.archs.edsr_arch"]
        run = module.EDSR(**EDSR).eval()
    else:
        run = Restorer(build_network({"type": "EDSR", **EDSR}).eval(), ROWS[row])
    run(torch.rand(1, 3, 32, 32))
    image, before, start = torch.rand(1, 3, 678, 1020), peak(), time.perf_counter()
    run(image)
    return {"gib": peak() - before, "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder that holds PyPI's basicsr 1.4.2")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one row, as JSON: how the processes are started
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.reference)))
        return
    print("| | peak memory | time |\n|---|---:|---:|")
    for row in ROWS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", row]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"| {row} | {found['gib']:.2f} GiB | {found['seconds']:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
