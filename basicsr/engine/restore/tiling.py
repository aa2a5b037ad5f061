"""Runs a network over a large image in overlapping tiles, without visible seams.

All tiles have one size; those at the right and bottom edge are moved inwards instead of being cut. Across an overlap
of ``o`` pixels between two tiles, each one's outermost quarter, where the padding of its convolutions shows, has no
weight; over the middle half the two are blended by a raised cosine. At every pixel the tiles' weights sum to 1, so a
network whose output pixel depends on input pixels at most ``o/4`` away gives the same as without tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DEFAULT_OVERLAP = 32


@dataclass(frozen=True)
class Tiles:
    """How an image is cut into tiles.

    Attributes:
        size: Side of a tile in input pixels.
        overlap: What neighbouring tiles share at least, in input pixels: at most half of ``size``. None for 32, or for
            a quarter of the tile if that is less.
        multiple_of: Tiles start at multiples of it, and ``size`` is one.

    Raises:
        ValueError: If the overlap does not fit the size.
    """

    size: int
    overlap: int | None = None
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.overlap is None:
            object.__setattr__(self, "overlap", min(DEFAULT_OVERLAP, self.size // 4))
        if self.size < 1 or self.overlap < 0 or 2 * self.overlap > self.size:
            raise ValueError(
                f"tiles of {self.size} pixels cannot overlap by {self.overlap}: a tile must be at least 1, and the "
                f"overlap at least 0 and at most half of the tile"
            )
        assert self.size % self.multiple_of == 0, "the caller rounds the size"

    def starts(self, length: int) -> list[int]:
        """Where the tiles begin along a side of ``length`` pixels, evenly spread from 0 to ``length − size``.

        One tile, of the whole side, where it is no longer than a tile.
        """
        if length <= self.size:
            return [0]
        last = (length - self.size) // self.multiple_of
        stride = max((self.size - self.overlap) // self.multiple_of, 1)
        steps = -(-last // stride)
        return [i * last // steps * self.multiple_of for i in range(steps)] + [length - self.size]

    def weights(self, length: int, scale: int) -> Tensor:
        """The tiles' weights along a side, float32 ``(tiles, tile · scale)``; at each pixel they sum to 1."""
        starts = self.starts(length)
        if len(starts) == 1:
            return torch.ones(1, length * scale)
        margin, overlap = self.overlap // 4, self.overlap
        distance = (torch.arange(self.size * scale, dtype=torch.float64) + 0.5) / scale  # from the tile's edge
        rise = ((distance - margin) / max(overlap - 2 * margin, 1)).clamp(0, 1)
        rise = torch.sin(rise * torch.pi / 2) ** 2
        total = torch.zeros(length * scale, dtype=torch.float64)
        weights = []
        for start in starts:
            weight = torch.ones_like(rise)
            if start > 0:
                weight = weight * rise
            if start + self.size < length:
                weight = weight * rise.flip(0)
            total[start * scale : (start + self.size) * scale] += weight
            weights.append(weight)
        return torch.stack(
            [w / total[s * scale : (s + self.size) * scale] for s, w in zip(starts, weights, strict=True)]
        ).float()


def run_tiled(net: Callable[[Tensor], Tensor], lq: Tensor, tiles: Tiles) -> Tensor:
    """``net(lq)``, computed tile by tile.

    Args:
        net: Maps ``(B, C, h, w)`` to ``(B, C', s·h, s·w)`` for a whole number ``s``.
        lq: ``(B, C, h, w)``; its sides are multiples of ``tiles.multiple_of``.
        tiles: How to cut it. An image no larger than a tile is not cut.

    Returns:
        ``(B, C', s·h, s·w)``; float32, or what ``net`` gives where it is one tile or float64.

    Raises:
        ValueError: If the output is not a whole number of times as large as the input.
    """
    height, width = lq.shape[-2:]
    tops, lefts = tiles.starts(height), tiles.starts(width)
    if len(tops) == len(lefts) == 1:
        return net(lq)
    output = None
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            tile = lq[..., top : top + tiles.size, left : left + tiles.size]
            result = net(tile)
            if output is None:
                scale = _scale(tile, result)
                dtype = torch.promote_types(result.dtype, torch.float32)
                output = result.new_zeros((*result.shape[:-2], height * scale, width * scale), dtype=dtype)
                rows = tiles.weights(height, scale).to(output)[:, :, None]
                columns = tiles.weights(width, scale).to(output)[:, None, :]
            y, x = top * scale, left * scale
            region = output[..., y : y + result.shape[-2], x : x + result.shape[-1]]
            region += result.to(dtype) * (rows[row] * columns[column])
    return output


def _scale(tile: Tensor, result: Tensor) -> int:
    (height, width), (out_height, out_width) = tile.shape[-2:], result.shape[-2:]
    scale = out_height // height
    if scale < 1 or (out_height, out_width) != (height * scale, width * scale):
        raise ValueError(
            f"tiles need a network whose output is 1, 2, 3 … times as large as its input, and {height}×{width} pixels "
            f"became {out_height}×{out_width}; remove val.tile"
        )
    return scale
