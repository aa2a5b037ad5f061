"""How PyTorch's CPU threads wait for each other."""

from __future__ import annotations

import os

OWN_WISHES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_waiting_threads_sleep() -> bool:
    """Have OpenMP's threads sleep while they wait for each other, instead of polling.

    Where cores are shared with another job, or with a loader's workers, a thread that polls keeps the core from the
    thread that it waits for; docs/performance.md has the figures. It must be called before PyTorch is imported, whose
    OpenMP library reads the environment once. What the environment says already holds.

    Returns:
        Whether it has been done.
    """
    if any(name in os.environ for name in OWN_WISHES):
        return False
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return True
