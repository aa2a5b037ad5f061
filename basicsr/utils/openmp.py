"""How PyTorch's CPU threads wait for each other."""

from __future__ import annotations

import os

USER_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPIN_COUNT = "1000"  # what libgomp itself takes where a program has more threads than the machine has cores


def limit_spinning() -> None:
    """Make libgomp's threads poll only briefly while they wait for each other, and then sleep.

    Where cores are shared with another job, or with a loader's workers, a thread that polls for long keeps the core
    from the thread that it waits for. Where the cores are free, a thread that sleeps at once is woken too often.
    docs/performance.md has the figures. Call it before PyTorch is imported, whose OpenMP library reads the environment
    once. Other libraries than libgomp ignore it. Settings that are in the environment already are kept.
    """
    if not any(name in os.environ for name in USER_SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
