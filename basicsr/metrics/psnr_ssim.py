"""PSNR and SSIM, of image files in NumPy and of batches in PyTorch."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from basicsr.metrics.metric_util import ShapeMismatchError, prepare_pair
from basicsr.utils.color_util import rgb2ycbcr_pt
from basicsr.utils.registry import METRIC_REGISTRY

# The constants of Wang et al., section III-B and III-C, for values in [0, 255].
_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2

_STRIP = 64  # rows of the SSIM map computed at once, so that what lies between stays in the cache


@METRIC_REGISTRY.register()
def calculate_psnr(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int,
    input_order: Literal["HWC", "CHW"] = "HWC",
    test_y_channel: bool = False,
) -> float:
    """Peak signal-to-noise ratio, ``10·log10(255² / mean squared error)``, over all channels together.

    Args:
        img: Image in [0, 255], uint8 or floating, as ``input_order`` says; BGR if it has three channels.
        img2: The image to compare with, of the same shape.
        crop_border: Pixels left out on each side.
        input_order: ``HWC`` or ``CHW``.
        test_y_channel: Whether to compare MATLAB's Y alone.

    Returns:
        Decibels; infinity for equal images.

    Raises:
        ValueError: If the shapes differ or the border leaves nothing.
    """
    first, second = prepare_pair(img, img2, crop_border, input_order, test_y_channel)
    difference = (first - second).ravel()
    mse = float(difference @ difference) / difference.size
    return math.inf if mse == 0 else 10.0 * math.log10(255.0**2 / mse)


@METRIC_REGISTRY.register()
def calculate_ssim(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int,
    input_order: Literal["HWC", "CHW"] = "HWC",
    test_y_channel: bool = False,
) -> float:
    """Structural similarity: the mean of the SSIM map over the valid region, and over channels.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", TIP 2004, eq. 13, with
    the authors' window: Gaussian, 11×11, σ 1.5. The arguments are those of ``calculate_psnr``.

    Returns:
        A similarity in [-1, 1]; 1 for equal images. NaN where less than 11×11 pixels are left within the border, for
        which it is not defined.

    Raises:
        ValueError: If the shapes differ or the border leaves nothing.
    """
    first, second = prepare_pair(img, img2, crop_border, input_order, test_y_channel)
    height, width = first.shape[:2]
    if min(height, width) < _WINDOW:
        return math.nan
    total = 0.0
    for top in range(0, height - _WINDOW + 1, _STRIP):
        rows = slice(top, top + _STRIP + _WINDOW - 1)
        total += float(_ssim_map(first[rows], second[rows]).sum())
    return total / ((height - _WINDOW + 1) * (width - _WINDOW + 1) * first.shape[2])


def _ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SSIM in the valid region, ``(H - 10, W - 10, C)``, of two images ``(H, W, C)``, float64 in [0, 255]."""
    kernel = cv2.getGaussianKernel(_WINDOW, _SIGMA)
    margin = _WINDOW // 2

    def local_mean(values: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel)[margin:-margin, margin:-margin]

    # The variances occur only as their sum, so four filterings suffice: of x, y, x² + y² and x·y.
    mean_x, mean_y = local_mean(x), local_mean(y)
    product_of_means = mean_x * mean_y
    squared_means = mean_x * mean_x + mean_y * mean_y
    variances = local_mean(x * x + y * y) - squared_means
    covariance = local_mean(x * y) - product_of_means
    ssim_map = (2 * product_of_means + _C1) * (2 * covariance + _C2)
    ssim_map /= (squared_means + _C1) * (variances + _C2)
    return ssim_map


@METRIC_REGISTRY.register()
def calculate_psnr_pt(
    img: torch.Tensor, img2: torch.Tensor, crop_border: int, test_y_channel: bool = False
) -> torch.Tensor:
    """PSNR of each image of a batch, differentiable, with 1e-8 added to the mean squared error of [0, 1].

    Args:
        img: Images ``(B, C, H, W)`` in [0, 1], RGB if there are three channels.
        img2: The images to compare with, of the same shape.
        crop_border: Pixels left out on each side.
        test_y_channel: Whether to compare MATLAB's Y alone.

    Returns:
        Decibels ``(B,)``, float64; 80 for equal images.

    Raises:
        ValueError: If the shapes differ or the border leaves nothing.
    """
    first, second = _prepare_batches(img, img2, crop_border, test_y_channel)
    mse = (first - second).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(1.0 / (mse + 1e-8))


@METRIC_REGISTRY.register()
def calculate_ssim_pt(
    img: torch.Tensor, img2: torch.Tensor, crop_border: int, test_y_channel: bool = False
) -> torch.Tensor:
    """SSIM of each image of a batch, differentiable; the definition of ``calculate_ssim`` and the arguments of
    ``calculate_psnr_pt``.

    Returns:
        Similarities ``(B,)``, float64.

    Raises:
        ValueError: If the shapes differ, or less than 11×11 pixels are left within the border.
    """
    x, y = (batch * 255.0 for batch in _prepare_batches(img, img2, crop_border, test_y_channel))
    _check_ssim_size(*x.shape[2:])
    count, channels = x.shape[:2]
    kernel = torch.from_numpy(cv2.getGaussianKernel(_WINDOW, _SIGMA)).to(x)
    moments = torch.cat([x, y, x * x + y * y, x * y], dim=1).flatten(0, 1)[:, None]
    moments = F.conv2d(F.conv2d(moments, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    mean_x, mean_y, mean_squares, mean_product = moments.unflatten(0, (count, 4, channels)).squeeze(3).unbind(1)
    product_of_means = mean_x * mean_y
    squared_means = mean_x * mean_x + mean_y * mean_y
    ssim_map = (2 * product_of_means + _C1) * (2 * (mean_product - product_of_means) + _C2)
    ssim_map = ssim_map / ((squared_means + _C1) * (mean_squares - squared_means + _C2))
    return ssim_map.mean(dim=(1, 2, 3))


def _prepare_batches(
    img: torch.Tensor, img2: torch.Tensor, crop_border: int, test_y_channel: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches as they are compared: cropped, float64, luma on request if there are three channels."""
    if img.shape != img2.shape or img.dim() != 4:
        raise ShapeMismatchError(
            f"a metric compares batches (B, C, H, W) of one shape, not {tuple(img.shape)} and {tuple(img2.shape)}"
        )
    height, width = img.shape[2:]
    if crop_border < 0 or min(height, width) <= 2 * crop_border:
        raise ValueError(f"crop_border {crop_border} leaves nothing of images of {height}×{width} pixels")
    batches = []
    for batch in (img, img2):
        batch = batch[:, :, crop_border : height - crop_border, crop_border : width - crop_border].to(torch.float64)
        batches.append(rgb2ycbcr_pt(batch, y_only=True) if test_y_channel and batch.shape[1] == 3 else batch)
    return batches[0], batches[1]


def _check_ssim_size(height: int, width: int) -> None:
    if min(height, width) < _WINDOW:
        raise ValueError(
            f"SSIM needs {_WINDOW}×{_WINDOW} pixels or more within crop_border, not {height}×{width} (height×width)"
        )
