"""Time of a training step with two threads by how OpenMP's threads wait, alone and beside another job.

    python scripts/benchmark/waiting_threads.py [--network small] [--steps 12] [--rounds 2]

``small`` is an EDSR of 16 channels and 4 blocks (4 patches of 32×32), ``swinir`` a SwinIR-S of 2×2 blocks (one of
48×48). The other job is a process that computes without a pause. Each row is a process of its own: the median and the
mean time of a step, and the CPU time that one takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import torch
from train_step import NETWORKS, SWINIR, our_step

from basicsr.archs import build_network

SETTINGS = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
}
CASES = {  # network, batch, side
    "small": (NETWORKS["EDSR-M ×4"] | {"num_feat": 16, "num_block": 4, "upscale": 2}, 4, 32),
    "swinir": (SWINIR | {"depths": [2, 2], "num_heads": [6, 6]}, 1, 48),
}
WARM_UP = 3


def measure(network: str, steps: int) -> str:
    """A row's numbers, of this process."""
    torch.set_num_threads(2)
    options, batch, side = CASES[network]
    large = side * options["upscale"]
    step = our_step(build_network(options), torch.rand(batch, 3, side, side), torch.rand(batch, 3, large, large), False)
    for _ in range(WARM_UP):
        step()
    seconds, cpu = [], time.process_time()
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    numbers = statistics.median(seconds), statistics.fmean(seconds), (time.process_time() - cpu) / steps
    return " | ".join(f"{1e3 * number:.0f}" for number in numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=CASES, default="small")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # one row: how processes are started
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(arguments.network, arguments.steps))
        return
    print("| beside | waiting threads | median ms | mean ms | CPU ms | load |\n|---|---|---:|---:|---:|---:|")
    command = [sys.executable, *sys.argv, "--measure"]
    for _ in range(arguments.rounds):
        for beside in ("nothing of ours", "another job"):
            job = [sys.executable, "-c", "while True: pass" if beside == "another job" else ""]
            with subprocess.Popen(job) as other:
                for name, setting in SETTINGS.items():
                    environment = {**os.environ, "BASICSR_FORMS": "default", **setting}
                    row = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
                    load = os.getloadavg()[0]
                    print(f"| {beside} | {name} | {row.stdout.strip()} | {load:.1f} |", flush=True)
                other.kill()


if __name__ == "__main__":
    main()
