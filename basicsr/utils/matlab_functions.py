"""MATLAB's ``imresize`` with its default bicubic kernel, the resampling that defines "bicubic" LR images.

The conversions of colours are here, too, where plug-ins written for BasicSR 1.3 import them from.
"""

from __future__ import annotations

import functools
import math
from typing import TypeVar

import numpy as np
import torch
from scipy import sparse

from .color_util import bgr2ycbcr, rgb2ycbcr, ycbcr2bgr, ycbcr2rgb

__all__ = ["bgr2ycbcr", "calculate_weights_indices", "cubic", "imresize", "rgb2ycbcr", "ycbcr2bgr", "ycbcr2rgb"]

Image = TypeVar("Image", np.ndarray, torch.Tensor)

_KERNEL_WIDTH = 4


def imresize(img: Image, scale: float, antialiasing: bool = True) -> Image:
    """Resize an image as MATLAB's ``imresize(img, scale)`` does.

    Separable bicubic interpolation (Keys, "Cubic convolution interpolation for digital image processing", 1981,
    a = -1/2), the kernel widened by 1/scale when shrinking, the border mirrored with its edge pixel repeated, first
    along the height and then along the width. As in MATLAB, a uint8 image is rounded (half up) and saturated after
    each of the two; only this order and rounding reproduce the LR files of the benchmarks.

    Args:
        img: A NumPy image ``(H, W)`` or ``(H, W, C)``, uint8 or floating, or a floating tensor ``(..., H, W)``.
        scale: The factor, 0.5 to halve.
        antialiasing: Whether to widen the kernel when shrinking.

    Returns:
        The resized image, of the kind, dtype and range of the input, ``ceil(H·scale)`` by ``ceil(W·scale)`` pixels.
        Floats may overshoot their range. A tensor stays on its device and carries gradients.

    Raises:
        ValueError: If the scale is not positive, or for another dtype or number of dimensions, or an empty image.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"the scale of imresize must be a positive number, not {scale}")
    if 0 in img.shape:
        raise ValueError(f"imresize got an empty image of the shape {tuple(img.shape)}")
    if torch.is_tensor(img):
        return _resize_tensor(img, float(scale), antialiasing)
    return _resize_array(img, float(scale), antialiasing)


def _resize_array(img: np.ndarray, scale: float, antialiasing: bool) -> np.ndarray:
    if img.ndim not in (2, 3):
        raise ValueError(f"imresize takes an image (H, W) or (H, W, C), not the shape {img.shape}")
    if img.dtype != np.uint8 and not np.issubdtype(img.dtype, np.floating):
        raise ValueError(f"imresize takes uint8 or floating images, not {img.dtype}")
    values = img.astype(np.float64)
    for axis in (0, 1):
        weights = _weights(img.shape[axis], scale, antialiasing)
        lines = np.moveaxis(values, axis, 0)
        resized = weights @ lines.reshape(lines.shape[0], -1)
        values = np.moveaxis(resized.reshape(-1, *lines.shape[1:]), 0, axis)
        if img.dtype == np.uint8:
            values = np.floor(values + 0.5).clip(0, 255)
    return np.ascontiguousarray(values, dtype=img.dtype)


def _resize_tensor(img: torch.Tensor, scale: float, antialiasing: bool) -> torch.Tensor:
    if img.dim() < 2:
        raise ValueError(f"imresize takes a tensor (..., H, W), not the shape {tuple(img.shape)}")
    if not img.is_floating_point():
        raise ValueError(f"imresize takes floating tensors (and uint8 images as NumPy arrays), not {img.dtype}")
    # Half precision would lose in the sums more than its result can show, so neither its input nor autocast gets it.
    dtype = torch.float64 if img.dtype == torch.float64 else torch.float32
    height, width = (
        torch.from_numpy(_weights(size, scale, antialiasing).toarray()).to(img.device, dtype) for size in img.shape[-2:]
    )
    with torch.autocast(img.device.type, enabled=False):
        return (height @ img.to(dtype) @ width.T).to(img.dtype)


@functools.lru_cache(maxsize=64)
def _weights(size: int, scale: float, antialiasing: bool) -> sparse.csr_array:
    """The resampling of one axis as a sparse matrix ``(ceil(size·scale), size)`` whose rows sum to 1."""
    out_size = math.ceil(size * scale)
    shrink = min(scale, 1.0) if antialiasing else 1.0
    # Centres of the output pixels on the input's axis, where input pixel i covers [i - 1/2, i + 1/2].
    centre = (np.arange(out_size) + 0.5) / scale - 0.5
    width = _KERNEL_WIDTH / shrink
    first = np.floor(centre - width / 2).astype(np.int64)
    taps = first[:, None] + np.arange(math.ceil(width) + 2)
    weights = _cubic(shrink * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)

    mirrored = taps % (2 * size)
    mirrored = np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
    rows = np.broadcast_to(np.arange(out_size)[:, None], taps.shape)
    matrix = sparse.coo_array((weights.ravel(), (rows.ravel(), mirrored.ravel())), shape=(out_size, size)).tocsr()
    matrix.eliminate_zeros()
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2 (eq. 15), zero outside [-2, 2]."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, inner, np.where(x <= 2.0, outer, 0.0))


def cubic(x: torch.Tensor) -> torch.Tensor:
    """Keys' cubic convolution kernel with a = -1/2 (eq. 15) of every element, in the dtype of ``x``."""
    x = x.abs()
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, inner, torch.where(x <= 2, outer, torch.zeros_like(x)))


def calculate_weights_indices(
    in_length: int, out_length: int, scale: float, kernel: str, kernel_width: float, antialiasing: bool
) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """The resampling of one axis as plug-ins written for BasicSR take it, in its float32; ``imresize`` does without it.

    Args:
        in_length: Size of the input.
        out_length: Size of the output.
        scale: The factor.
        kernel: Not used; it is the cubic one.
        kernel_width: Width of the kernel, 4.
        antialiasing: Whether to widen the kernel when shrinking.

    Returns:
        Weights ``(out_length, taps)`` whose rows sum to 1; the pixels that they belong to, likewise, as positions in
        the axis with its mirror image before and behind it; and the number of mirrored pixels before and behind.
    """
    shrink = scale if antialiasing and scale < 1 else 1
    width = kernel_width / shrink
    centre = torch.arange(1.0, out_length + 1) / scale + 0.5 * (1 - 1 / scale)  # the first pixel's is 1, as in MATLAB
    count = math.ceil(width) + 2
    taps = torch.floor(centre - width / 2)[:, None] + torch.arange(float(count))
    weights = shrink * cubic((centre[:, None] - taps) * shrink)
    weights = weights / weights.sum(dim=1, keepdim=True)
    # Two columns more than the kernel is wide: those at the ends go where they do not weigh.
    if (weights[:, 0] == 0).any():
        kept = slice(1, count - 1)
    else:
        kept = slice(0, count - 2 if (weights[:, -1] == 0).any() else count)
    weights, taps = weights[:, kept].contiguous(), taps[:, kept].contiguous()
    before, behind = int(1 - taps.min()), int(taps.max() - in_length)
    return weights, taps + before - 1, before, behind
