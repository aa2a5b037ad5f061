"""Times short computations against each other, without side effects on the calling thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 5
BUDGET = 0.1  # seconds after which no further round begins


def time_each(make: Callable[[], dict[str, Callable[[], Any]]]) -> dict[str, float]:
    """The shortest time that each computation took, over a few rounds in which they take turns.

    They run in a separate thread, without the calling thread's autocast, inference mode, profiler or FLOP counter. The
    first round warms up and is not timed. The shortest time is the one that other jobs disturbed least.

    Args:
        make: Builds the computations, by name; called in that thread. It must not draw from PyTorch's global generator.

    Returns:
        Seconds, by name.
    """
    seconds: dict[str, float] = {}
    failure: list[Exception] = []

    def run() -> None:
        try:
            computations = make()
            begin = time.perf_counter()
            for number in range(ROUNDS + 1):
                for name, compute in computations.items():
                    start = time.perf_counter()
                    compute()
                    taken = time.perf_counter() - start
                    seconds[name] = taken if number <= 1 else min(seconds[name], taken)
                if number and time.perf_counter() - begin > BUDGET:
                    break
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="stopwatch")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return seconds
