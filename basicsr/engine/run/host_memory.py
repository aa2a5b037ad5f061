"""Keeping what the C library frees, because having it given again is slow."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # names of mallopt's parameters, from malloc.h
_ONE_GIB = 2**30
_MOST = 2**31 - 1  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Have the C library keep buffers that PyTorch frees on the host, for the next ones.

    By default glibc gives every freed buffer of 32 MiB or more back to the system at once, so that each large
    activation of each step is mapped and zeroed page by page anew; docs/performance.md tells what that costs. The
    process then holds the most memory it has needed until it ends. Elsewhere than on Linux with glibc nothing is done,
    nor when the environment sets ``MALLOC_…`` or ``GLIBC_TUNABLES`` itself.

    Returns:
        Whether it has been done.
    """
    if not sys.platform.startswith("linux") or any(k.startswith(("MALLOC_", "GLIBC_TUNABLES")) for k in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_TRIM_THRESHOLD, _MOST):
        return False
    # Older versions of glibc take no threshold above 32 MiB; they can be told to map nothing at all.
    return bool(mallopt(_MMAP_THRESHOLD, _ONE_GIB) or mallopt(_MMAP_MAX, 0))
