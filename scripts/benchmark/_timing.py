"""Times computations in turn, so that whatever else the machine does affects all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import torch


def time_in_turn(calls: Mapping[str, Callable[[], None]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, after one run each to warm up; on a GPU until its work is done."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            _wait()
            start = clock()
            call()
            _wait()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
