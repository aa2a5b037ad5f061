"""How PyTorch's CPU threads wait for each other."""

from __future__ import annotations

import os

OWN_WISHES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPIN_COUNT = "1000"  # what libgomp itself takes where a program has more threads than the machine has cores


def poll_briefly() -> bool:
    """Have libgomp's threads poll only briefly while they wait for each other, and then sleep.

    Where cores are shared with another job, or with a loader's workers, a thread that polls for long keeps the core
    from the thread that it waits for; one that sleeps at once is woken too often where the cores are free.
    docs/performance.md has the figures. It must be called before PyTorch is imported, whose OpenMP library reads the
    environment once; other libraries than libgomp ignore it. What the environment says already holds.

    Returns:
        Whether it has been done.
    """
    if any(name in os.environ for name in OWN_WISHES):
        return False
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    return True
