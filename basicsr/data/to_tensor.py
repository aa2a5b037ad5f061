"""Converts stored pixels to normalised float32 tensors, the last step of reading a sample."""

from __future__ import annotations

import numpy as np
import torch

from basicsr.utils.color_util import bgr2ycbcr

from .transforms import normalize

# The largest value of each integer type of image files. A dict: np.iinfo takes as long as a patch.
_LARGEST = {np.dtype(kind).char: np.float32(np.iinfo(kind).max) for kind in ("u1", "u2")}


class ToTensor:
    """Converts images ``(H, W, 3)``, BGR, of any depth, to tensors ``(C, H, W)``.

    A tensor is RGB in [0, 1], or luma alone, then normalised.

    Args:
        luma: Whether to give luma (BT.601, 16-235) as the only channel.
        mean: Subtracted from each channel.
        std: What each channel is divided by after that.
    """

    def __init__(self, luma: bool = False, mean: list[float] | None = None, std: list[float] | None = None) -> None:
        self._luma, self._mean, self._std = luma, mean, std
        self.channels = 1 if luma else 3

    def __call__(self, img: np.ndarray) -> torch.Tensor:
        """The tensor of an image."""
        out = np.empty((self.channels, *img.shape[:2]), np.float32)
        self.write(img, out)
        return torch.from_numpy(out)

    def write(self, img: np.ndarray, out: np.ndarray) -> None:
        """Write the tensor of an image into ``out`` (C, H, W), float32, such as a row of a batch.

        Raises:
            ValueError: If mean or std do not fit the channels.
        """
        if self._luma:
            out[0] = bgr2ycbcr(unit_range(img), y_only=True)
        else:
            _write_unit_range(img.transpose(2, 0, 1)[::-1], out)
        if self._mean is not None or self._std is not None:
            out[...] = normalize(torch.from_numpy(out), self._mean, self._std).numpy()


def unit_range(img: np.ndarray) -> np.ndarray:
    """An image of any depth as a new float32 array, integers divided by the largest of their type."""
    out = np.empty(img.shape, np.float32)
    _write_unit_range(img, out)
    return out


def _write_unit_range(img: np.ndarray, out: np.ndarray) -> None:
    """Copy values, integers divided by the largest of their type; the division is exactly ``imfrombytes``'s."""
    out[...] = img
    largest = _LARGEST.get(img.dtype.char)
    if largest is not None:
        out /= largest
