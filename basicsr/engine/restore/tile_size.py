"""The largest tile that fits into free memory, extrapolated from a small measured run."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PROBE = 64
"""Side of the measured tile, in input pixels."""

SAFETY = 2.5
"""Factor on the measured memory, for workspaces of convolutions and fragmentation."""

ASSUMED_FREE = 2 << 30
"""Bytes assumed to be free on a system that does not report them."""


class PeakMemory(TorchDispatchMode):
    """Context manager that measures the bytes of the tensors that are alive at once, on any device.

    Attributes:
        peak: The largest number of bytes so far. Tensors from before the block are not included, except those of
            which a view is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._track(tensor.untyped_storage())
        return result

    def _track(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            weakref.finalize(storage, self._sizes.pop, key, None)
            self.peak = max(self.peak, sum(self._sizes.values()))


def bytes_per_pixel(net: Callable[[Tensor], Tensor], lq: Tensor, side: int = PROBE) -> float:
    """The memory that ``net`` needs per input pixel, measured on zeros.

    Args:
        net: The network.
        lq: ``(B, C, h, w)``: an input, of which batch, channels, type and device are taken.
        side: Of the measured image, in pixels; a size that the network accepts.
    """
    with PeakMemory() as memory:
        net(lq.new_zeros(*lq.shape[:2], side, side))
    return memory.peak / side**2


def free_memory(device: torch.device) -> int:
    """The bytes that can be allocated on a device: on the CPU, of RAM and within the control group's limit."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu":
        return ASSUMED_FREE
    bounds = [
        free
        for free in (_available_ram(), _cgroup_free("memory.max", "memory.current"), _cgroup_free_v1())
        if free >= 0
    ]
    return min(bounds, default=ASSUMED_FREE)


def largest_tile(free: int, per_pixel: float, multiple_of: int = 1) -> int:
    """The side of the largest square tile that needs no more than ``free`` bytes, a multiple of ``multiple_of``.

    Args:
        free: Bytes.
        per_pixel: Bytes measured by :func:`bytes_per_pixel`.
        multiple_of: What the side is rounded down to a multiple of; at least this is returned.
    """
    side = math.isqrt(int(free / (SAFETY * max(per_pixel, 1))))
    return max(side // multiple_of, 1) * multiple_of


def _available_ram() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return -1
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), -1)


def _cgroup_free(limit: str, usage: str, root: str = "/sys/fs/cgroup") -> int:
    """Limit − usage of a control group; −1 where there is none, or no limit."""
    try:
        return max(int(Path(root, limit).read_text()) - int(Path(root, usage).read_text()), 0)
    except (OSError, ValueError):  # no such file, or `max`
        return -1


def _cgroup_free_v1() -> int:
    return _cgroup_free("memory.limit_in_bytes", "memory.usage_in_bytes", "/sys/fs/cgroup/memory")
