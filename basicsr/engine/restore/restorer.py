"""Restores images with a network: one pipeline for validation, ``test.py`` and ``basicsr upscale``.

The image is flipped and rotated (self-ensemble), each variant is padded to a size that the network accepts, and cut
into tiles. The same checkpoint gives the same pixels in all three.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from basicsr.archs.local_average import LocalStatistics, has_local_statistics
from basicsr.archs.size_requirement import SizeRequirement, size_requirement_of
from basicsr.engine.restore.padding import run_padded
from basicsr.engine.restore.self_ensemble import run_self_ensemble
from basicsr.engine.restore.tile_size import PROBE, SAFETY, bytes_per_pixel, free_memory, largest_tile
from basicsr.engine.restore.tiling import DEFAULT_OVERLAP, Tiles, run_tiled
from basicsr.utils.logger import get_root_logger
from basicsr.utils.misc import sizeof_fmt
from basicsr.utils.options.sections import ValOptions


@dataclass(frozen=True)
class RestoreSettings:
    """How a network is run on images; the keys of ``val`` of the same names.

    Attributes:
        tile: Side of a tile in input pixels, ``auto`` for what free memory allows, or None for the whole image.
        tile_overlap: See :class:`~basicsr.engine.restore.tiling.Tiles`.
        self_ensemble: Whether to average over the eight flips and rotations.
        window_size: Pad to a multiple of this instead of what the network declares.
        local_statistics: Side of the training patches, from whose size windows follow that the network averages over
            instead of the image; see :class:`~basicsr.archs.local_average.LocalStatistics`.
    """

    tile: int | Literal["auto"] | None = None
    tile_overlap: int | None = None
    self_ensemble: bool = False
    window_size: int | None = None
    local_statistics: int | None = None

    @classmethod
    def from_options(cls, val: Mapping[str, Any] | None) -> RestoreSettings:
        """The settings of an option file's ``val`` section, which may be absent."""
        options = ValOptions.of(val)
        return cls(**{key: getattr(options, key) for key in cls.__dataclass_fields__})


class Restorer:
    """Restores images with a network.

    With ``tile: auto`` the tile is chosen once, at the first image. If memory runs out nevertheless, the tile is halved
    for that image and all later ones.

    Args:
        net: The network, on its device and without any wrapper.
        settings: How it is run.

    Raises:
        ValueError: If the overlap does not fit the tile, or the network cannot have local statistics, or not in tiles.
    """

    def __init__(self, net: nn.Module, settings: RestoreSettings | None = None) -> None:
        self.net = net
        self.settings = settings or RestoreSettings()
        requirement = size_requirement_of(net)
        if self.settings.window_size:
            requirement = replace(requirement, multiple_of=self.settings.window_size)
        self.requirement: SizeRequirement = requirement
        self._tiles: Tiles | None = None
        if self.settings.local_statistics and not isinstance(net, LocalStatistics):
            raise ValueError(
                f"val.local_statistics: {type(net).__name__} has no averages over the image that could be local; "
                f"remove the option (NAFNet has such averages)"
            )
        if self.settings.tile and (self.settings.local_statistics or has_local_statistics(net)):
            what = "val.local_statistics" if self.settings.local_statistics else type(net).__name__
            raise ValueError(
                f"{what} cannot be used with tiles, which cut the windows it averages over; leave tiles out"
            )
        if isinstance(self.settings.tile, int):
            Tiles(self.settings.tile, self.settings.tile_overlap)  # as the user wrote it, so that errors name that
            self._tiles = self._tiles_of(self.settings.tile)

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> Tensor:
        """Restore ``(B, C, h, w)`` in eval mode, without gradients; the network's mode is restored afterwards."""
        with eval_mode(self.net), self._statistics():
            if self.settings.tile == "auto" and self._tiles is None:
                self._tiles = self._measured_tiles(lq)
            while True:
                try:
                    return self._run(lq)
                except RuntimeError as error:
                    smaller = self._smaller_tiles(lq) if _out_of_memory(error) else None
                    if smaller is None:
                        raise
                self._tiles = smaller  # outside of `except`, where the failed run's tensors are still alive
                get_root_logger().warning(f"Out of memory: tiles are reduced to {smaller.size} pixels.")
                if lq.is_cuda:
                    torch.cuda.empty_cache()

    def _statistics(self) -> contextlib.AbstractContextManager:
        side = self.settings.local_statistics
        return self.net.local_statistics(side) if side else contextlib.nullcontext()

    def _run(self, lq: Tensor) -> Tensor:
        # Not `net.__call__`, which the training may have compiled: the figures would differ from a test's, and each
        # image size would be compiled again.
        run = self.net.forward
        if self._tiles is not None:
            run = partial(run_tiled, run, tiles=self._tiles)
        run = partial(run_padded, run, requirement=self.requirement)
        return run_self_ensemble(run, lq) if self.settings.self_ensemble else run(lq)

    def _tiles_of(self, size: int) -> Tiles:
        return Tiles(self.requirement.round_up(size), self.settings.tile_overlap, self.requirement.multiple_of)

    @property
    def _smallest(self) -> int:
        """The smallest tile that ``auto`` chooses."""
        overlap = self.settings.tile_overlap
        return self.requirement.round_up(2 * max(DEFAULT_OVERLAP if overlap is None else overlap, 1))

    def _measured_tiles(self, lq: Tensor) -> Tiles:
        per_pixel = bytes_per_pixel(self.net.forward, lq, self.requirement.round_up(PROBE))
        free = free_memory(lq.device)
        size = max(largest_tile(free, per_pixel, self.requirement.multiple_of), self._smallest)
        get_root_logger().info(
            f"Tiles of {size} pixels: {sizeof_fmt(SAFETY * per_pixel)} per pixel, {sizeof_fmt(free)} of memory free."
        )
        return self._tiles_of(size)

    def _smaller_tiles(self, lq: Tensor) -> Tiles | None:
        """Tiles of half the size; None without ``auto``, or if they are at the smallest size."""
        if self.settings.tile != "auto" or self._tiles is None:
            return None
        size = min(self._tiles.size, max(lq.shape[-2:]))
        return self._tiles_of(max(size // 2, self._smallest)) if size > self._smallest else None


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)  # CUDA, CPU


@contextlib.contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Context manager in which a network is in eval mode; the mode of every module is restored at its end."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
