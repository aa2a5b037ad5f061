"""Reuse of host memory that the C library would return to the system."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # names of mallopt's parameters, from malloc.h
_ONE_GIB = 2**30
_INT_MAX = 2**31 - 1  # mallopt takes an int


def disable_malloc_trim() -> None:
    """Make the C library keep the buffers that PyTorch frees on the host, and reuse them.

    By default glibc returns every freed buffer of 32 MiB or more to the system at once, and each large activation of
    each step is mapped and zeroed again, page by page. docs/performance.md has the cost. The process then holds, until
    it ends, the most memory that it has needed. Nothing is done except on Linux with glibc, or where the environment
    sets ``MALLOC_…`` or ``GLIBC_TUNABLES`` itself.
    """
    if not sys.platform.startswith("linux") or any(k.startswith(("MALLOC_", "GLIBC_TUNABLES")) for k in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_TRIM_THRESHOLD, _INT_MAX):
        return
    if not mallopt(_MMAP_THRESHOLD, _ONE_GIB):  # older versions of glibc take no threshold above 32 MiB
        mallopt(_MMAP_MAX, 0)  # map nothing at all
