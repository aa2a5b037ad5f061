"""Measure the peak memory and the time of MCA's spatial attention, forward and backward, and print a Markdown table.

    python scripts/benchmark/spatial_attention.py [--channels 48] [--sides 64 128 256] [--threads 1]

``plain`` is the formula as it is written, with the whole matrix of HW × HW scores; it is left out where that needs more
than ``--limit`` GiB. Each entry is measured in a process of its own: the peak of its resident memory above what it had
before, and its CPU time, the shortest of ``--repeats`` passes (one of the largest side).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, whatever else is installed
from basicsr.distill.cross_attention import FORMS, cross_attention
from basicsr.utils.machine import cpu_capability, cpu_name

PLAIN_MATRICES = 4  # scores, weights, and the gradients of both


def attend(form: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if form == "plain":
        return (query @ key.mT / 0.1).softmax(2) @ value
    return cross_attention(query, key, value, 0.1, form=form)


def measure(form: str, side: int, channels: int, threads: int, repeats: int) -> tuple[float, float]:
    """Peak memory in MiB and seconds, in this process."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.nn.functional.normalize(torch.randn(1, side * side, channels, generator=generator), dim=2)
        for _ in range(3)
    )

    def step(count: int) -> None:
        own = [x[:, :count].clone().requires_grad_() for x in (query, value)]
        attend(form, own[0], key[:, :count], own[1]).square().mean().backward()

    step(64)  # loads the libraries
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(repeats):
        start = time.process_time()
        step(side * side)
        times.append(time.process_time() - start)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=48)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=8, help="GiB that the plain form may need")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*measure(options.one, options.sides[0], options.channels, options.threads, options.repeats))
        return
    print(f"PyTorch {torch.__version__}, {cpu_name()} ({cpu_capability()}), {options.threads} threads, ", end="")
    print(f"{options.channels} channels, fp32\n\n| H×W | form | peak memory | time |\n|---|---|---:|---:|")
    for side in options.sides:
        for form in ("plain", *FORMS.forms):
            needed = PLAIN_MATRICES * 4 * side**4 / 2**30
            if form == "plain" and needed > options.limit:
                print(f"| {side}×{side} | {form} | would be {needed:.0f} GiB | – |", flush=True)
                continue
            repeats = 1 if side == max(options.sides) else options.repeats
            own = ["--one", form, "--sides", side, "--channels", options.channels, "--repeats", repeats]
            command = [sys.executable, __file__, *own, "--threads", options.threads]
            result = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
            memory, seconds = map(float, result.stdout.split())
            print(f"| {side}×{side} | {form} | {memory:.0f} MiB | {seconds:.2f} s |", flush=True)


if __name__ == "__main__":
    main()
