"""Averages over a window around each pixel, for statistics that training took over patches.

Improving Image Restoration by Revisiting Global Information Aggregation (TLC; Chu et al., ECCV 2022, arXiv 2112.04491),
section 3.3. Window, border and the fast form are those of the authors' release (``local_arch.py`` of
github.com/megvii-research/NAFNet).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .size_requirement import size_requirement_of

WINDOW = 1.5  # sides of a window ÷ those of a training patch
STRIDES = (5, 4, 3, 2, 1)  # of the fast form, the first that divides the side


class LocalAverage(nn.Module):
    """The average over a window around each pixel; over the image where the window covers it.

    Windows lie within the image: near the border a pixel takes the nearest window's.

    Args:
        train_size: Height and width of the training patches, in pixels of the input.
        grid: Multiple to which the network pads its input, and how many pixels of the input are one of the features.
        fast: Sum every 5th (4th, 3rd, 2nd) pixel only, and give so many pixels the same average.
    """

    def __init__(self, train_size: tuple[int, int], grid: tuple[int, int], fast: bool = False) -> None:
        super().__init__()
        multiple, stride = grid
        patches = [-(-side // multiple) * multiple // stride for side in train_size]  # sides of a patch's features
        self.window = [patch * int(WINDOW * side) // side for patch, side in zip(patches, train_size)]
        self.max_stride = [max(1, STRIDES[0] * patch // side) for patch, side in zip(patches, train_size)]
        self.fast = fast

    def extra_repr(self) -> str:
        return f"window={self.window}, fast={self.fast}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, or to (B, C, 1, 1) where the window covers the image."""
        height, width = x.shape[-2:]
        if self.window[0] >= height and self.window[1] >= width:
            return F.adaptive_avg_pool2d(x, 1)
        average = x if x.dtype == torch.float64 else x.float()  # running sums need more than 16 bits
        if self.fast and min(height, width) > STRIDES[0]:
            average = self._fast(average)
        else:
            # One axis after the other, since a running sum over a row is more exact than one over the image.
            average = moving_average(moving_average(average, self.window[1], 3), self.window[0], 2)
        down, right = height - average.shape[-2], width - average.shape[-1]
        padding = (right // 2, (right + 1) // 2, down // 2, (down + 1) // 2)
        return F.pad(average, padding, mode="replicate").to(x.dtype)

    def _fast(self, x: Tensor) -> Tensor:
        strides = [
            min(largest, next(stride for stride in STRIDES if side % stride == 0))
            for side, largest in zip(x.shape[-2:], self.max_stride)
        ]
        average = x[..., :: strides[0], :: strides[1]]
        for axis, window, stride in zip((2, 3), self.window, strides):
            window = min(average.shape[axis] - 1, window // stride)
            average = moving_average(average.narrow(axis, 1, average.shape[axis] - 1), window, axis)
        return F.interpolate(average, scale_factor=strides)


class LocalStatistics:
    """A network whose averages over the image can be made local; a base class beside ``nn.Module``."""

    def averages(self) -> Iterator[tuple[nn.Sequential, int, int]]:
        """Its averages: each a sequence, the index of the module in it that averages, and how many pixels of the input
        are one of the features there."""
        raise NotImplementedError

    @property
    def is_local(self) -> bool:
        """Whether its averages are local now."""
        return any(isinstance(sequence[index], LocalAverage) for sequence, index, _ in self.averages())

    @contextmanager
    def local_statistics(self, train_side: int) -> Iterator[None]:
        """A block in which averages are over windows of 1.5 times a training patch of this side in pixels."""
        before = [(sequence, index, sequence[index]) for sequence, index, _ in self.averages()]
        for sequence, index, stride in self.averages():
            multiple = size_requirement_of(self).multiple_of
            sequence[index] = LocalAverage((train_side, train_side), (multiple, stride))
        try:
            yield
        finally:
            for sequence, index, module in before:
                sequence[index] = module


def has_local_statistics(network: nn.Module) -> bool:
    """Whether a network averages over windows, which tiles would cut."""
    return isinstance(network, LocalStatistics) and network.is_local


def moving_average(x: Tensor, window: int, axis: int) -> Tensor:
    """The means of ``window`` neighbours along an axis, at every position that has them; of all if there are fewer."""
    length = x.shape[axis]
    window = min(window, length)
    total = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.cumsum(axis)], dim=axis)
    count = length - window + 1
    return (total.narrow(axis, window, count) - total.narrow(axis, 0, count)) / window
