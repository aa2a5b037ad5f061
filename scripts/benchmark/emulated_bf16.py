"""Time of a forward pass of the students in bf16 against fp32, on a CPU, and the choice of `precision: auto` there.

    python scripts/benchmark/emulated_bf16.py [--threads 1] [--repeats 3] [--cpu-time]

One LR image of 48×48, without gradients, as frozen networks run: weights stored in bf16, under autocast. The two take
turns; printed are medians.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed

import torch
from train_step import NETWORKS

from basicsr.archs import build_network
from basicsr.engine.compute.precision import native_bf16, slowdown
from basicsr.engine.compute.runtime import NetworkRuntime


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    native, reason = native_bf16(torch.device("cpu"))
    print(f"auto is {'bf16' if native else 'fp32'}, since {reason}; one layer: {slowdown(torch.bfloat16):.1f}×\n")
    print("| network | fp32 | bf16 | bf16 : fp32 |\n|---|---:|---:|---:|")
    x = torch.rand(1, 3, 48, 48)
    for title, options in NETWORKS.items():
        net = build_network(options).eval()
        runtimes = {"fp32": NetworkRuntime(), "bf16": NetworkRuntime("bf16")}
        nets = {name: runtime.cast_weights(copy.deepcopy(net)) for name, runtime in runtimes.items()}
        seconds: dict[str, list[float]] = {name: [] for name in nets}
        for _ in range(arguments.repeats + 1):
            for name, runtime in runtimes.items():
                start = clock()
                runtime.run(nets[name], x)
                seconds[name].append(clock() - start)
        fp32, bf16 = (statistics.median(values[1:]) for values in seconds.values())
        print(f"| {title} | {1e3 * fp32:.0f} ms | {1e3 * bf16:.0f} ms | {bf16 / fp32:.1f}× |", flush=True)


if __name__ == "__main__":
    main()
