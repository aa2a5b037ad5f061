"""Conversions between RGB or BGR and YCbCr as MATLAB's ``rgb2ycbcr`` defines it (ITU-R BT.601, studio swing).

Y lies in [16, 235] and Cb, Cr in [16, 240] of 255. This is neither the full-swing YCbCr of JPEG nor OpenCV's.
"""

from __future__ import annotations

import numpy as np
import torch

# ITU-R BT.601-7, section 2.5, for RGB in [0, 1] and YCbCr in [0, 255]: one row each for Y, Cb and Cr.
RGB_TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
_YCBCR_TO_RGB = np.linalg.inv(RGB_TO_YCBCR)
YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])


def rgb2ycbcr(img: np.ndarray, y_only: bool = False) -> np.ndarray:
    """RGB to YCbCr.

    Args:
        img: Image ``(..., 3)``, uint8 in [0, 255] or floating in [0, 1].
        y_only: Whether to return luma alone.

    Returns:
        ``(..., 3)``, or ``(...)`` for luma alone, in the dtype and range of the input: uint8 is rounded, and floats
        are divided by 255, so that Y lies in [16/255, 235/255].

    Raises:
        ValueError: For another dtype or another number of channels.
    """
    return _to_ycbcr(img, RGB_TO_YCBCR, y_only)


def bgr2ycbcr(img: np.ndarray, y_only: bool = False) -> np.ndarray:
    """BGR to YCbCr (in this order); otherwise as ``rgb2ycbcr``."""
    return _to_ycbcr(img, RGB_TO_YCBCR[:, ::-1], y_only)


def ycbcr2rgb(img: np.ndarray) -> np.ndarray:
    """YCbCr to RGB, the inverse of ``rgb2ycbcr``.

    Args:
        img: Image ``(..., 3)``, uint8 in [0, 255] or floating in [0, 1].

    Returns:
        ``(..., 3)`` in the dtype and range of the input. Colours outside the RGB cube are clipped in uint8 and kept
        in floats.

    Raises:
        ValueError: For another dtype or another number of channels.
    """
    return _to_rgb(img, _YCBCR_TO_RGB)


def ycbcr2bgr(img: np.ndarray) -> np.ndarray:
    """YCbCr to BGR; otherwise as ``ycbcr2rgb``."""
    return _to_rgb(img, _YCBCR_TO_RGB[::-1])


def rgb2ycbcr_pt(img: torch.Tensor, y_only: bool = False) -> torch.Tensor:
    """RGB to YCbCr on tensors, differentiable.

    Args:
        img: Images ``(B, 3, H, W)`` or ``(3, H, W)``, floating in [0, 1].
        y_only: Whether to return luma alone.

    Returns:
        ``(B, 3, H, W)``, or ``(B, 1, H, W)`` for luma alone, divided by 255 and so in [0, 1].

    Raises:
        ValueError: If the images do not have three channels.
    """
    if img.dim() < 3 or img.shape[-3] != 3:
        raise ValueError(f"RGB images (B, 3, H, W) are expected, not the shape {tuple(img.shape)}")
    red, green, blue = img.unbind(-3)
    rows = RGB_TO_YCBCR[:1] if y_only else RGB_TO_YCBCR
    # Plain sums: a matrix product or 1×1 convolution may be done in TF32 on a GPU, with an error of half a grey level.
    planes = [
        red * float(r) + green * float(g) + blue * float(b) + float(offset)
        for (r, g, b), offset in zip(rows, YCBCR_OFFSET)
    ]
    return torch.stack(planes, dim=-3) / 255.0


def _to_ycbcr(img: np.ndarray, matrix: np.ndarray, y_only: bool) -> np.ndarray:
    unit = _unit_range(img)
    ycbcr = unit @ matrix[0] + YCBCR_OFFSET[0] if y_only else unit @ matrix.T + YCBCR_OFFSET
    return _from_byte_range(ycbcr, img.dtype)


def _to_rgb(img: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    rgb = (_unit_range(img) * 255.0 - YCBCR_OFFSET) @ matrix.T * 255.0
    return _from_byte_range(rgb, img.dtype)


def _unit_range(img: np.ndarray) -> np.ndarray:
    """The image as float64 in [0, 1]."""
    if img.ndim == 0 or img.shape[-1] != 3:
        raise ValueError(f"an image with three channels (..., 3) is expected, not the shape {img.shape}")
    if img.dtype == np.uint8:
        return img / 255.0
    if np.issubdtype(img.dtype, np.floating):
        return img.astype(np.float64)
    raise ValueError(f"a colour conversion takes uint8 in [0, 255] or floats in [0, 1], not {img.dtype}")


def _from_byte_range(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in [0, 255] in the dtype and range of the input."""
    if dtype == np.uint8:
        return values.round().clip(0, 255).astype(np.uint8)
    return (values / 255.0).astype(dtype)
