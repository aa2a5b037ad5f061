"""NIQE, the natural image quality evaluator: a metric that needs no reference.

Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE Signal Processing Letters
2013, with the constants of the authors' MATLAB release (http://live.ece.utexas.edu/research/quality/niqe_release.zip).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from scipy.special import gamma

from basicsr.metrics.metric_util import reorder_image, to_y_channel
from basicsr.utils.img_util import crop_border as cut_border
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import METRIC_REGISTRY

# ``mean`` (36) and ``covariance`` (36, 36) of the features of the 125 pristine photographs of the authors' release.
_PRISTINE_FILE = Path(__file__).with_name("niqe_pris_params.npz")

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


@METRIC_REGISTRY.register()
def calculate_niqe(
    img: np.ndarray,
    crop_border: int,
    input_order: Literal["HWC", "CHW"] = "HWC",
    convert_to: Literal["y", "gray"] = "y",
) -> float:
    """The distance of an image's local statistics from those of pristine photographs (eq. 10); lower is better.

    Args:
        img: Image in [0, 255], uint8 or floating, as ``input_order`` says; BGR if it has three channels.
        crop_border: Pixels left out on each side. What is left is cut to whole blocks of 96×96.
        input_order: ``HWC`` or ``CHW``.
        convert_to: ``y`` (MATLAB's luma, as the authors do) or ``gray`` (0.299 R + 0.587 G + 0.114 B).

    Returns:
        The distance; NaN for an image with fewer than two blocks that have any texture, for which it is undefined.

    Raises:
        ValueError: If fewer than two blocks fit in the image, or for another ``convert_to``.
    """
    plane = _to_plane(cut_border(reorder_image(img, input_order), crop_border), convert_to)
    return niqe(plane, *_pristine_model(), cv2.getGaussianKernel(7, 7 / 6))


def niqe(
    img: np.ndarray,
    mu_pris_param: np.ndarray,
    cov_pris_param: np.ndarray,
    gaussian_window: np.ndarray,
    block_size_h: int = 96,
    block_size_w: int = 96,
) -> float:
    """NIQE of a plane, with other constants than the authors' on request.

    Args:
        img: Plane ``(H, W)`` in [0, 255], rounded.
        mu_pris_param: Mean of the features of pristine photographs, 36 values.
        cov_pris_param: Their covariance, ``(36, 36)``.
        gaussian_window: The window of local means, ``(7, 7)``; or ``(7, 1)``, where it is the product of this and its
            transpose.
        block_size_h: Height of a block, even.
        block_size_w: Its width, even.

    Returns:
        As :func:`calculate_niqe`.

    Raises:
        ValueError: If there are less than two blocks, or they have odd sides.
    """
    height, width = block_size_h, block_size_w
    rows, columns = img.shape[0] // height, img.shape[1] // width
    if rows * columns < 2 or height % 2 or width % 2:
        raise ValueError(
            f"NIQE needs two blocks of {height}×{width} pixels (even numbers) or more within crop_border; "
            f"{img.shape[0]}×{img.shape[1]} pixels (height×width) hold {rows * columns}"
        )
    plane = img[: rows * height, : columns * width].astype(np.float64)
    features = [
        _block_features(_normalise(plane, gaussian_window), height, width),
        _block_features(_normalise(imresize(plane, 0.5), gaussian_window), height // 2, width // 2),
    ]
    return _distance(np.hstack(features), np.ravel(mu_pris_param), cov_pris_param)


def _to_plane(img: np.ndarray, convert_to: str) -> np.ndarray:
    """One rounded float64 plane ``(H, W)`` of an image ``(H, W, C)``."""
    if convert_to == "y":
        plane = to_y_channel(img)
    elif convert_to == "gray":
        unit = img.astype(np.float32) / 255.0
        plane = (cv2.cvtColor(unit, cv2.COLOR_BGR2GRAY) if img.shape[2] == 3 else unit) * 255.0
    else:
        raise ValueError(f"convert_to must be y or gray, not {convert_to}")
    return plane.reshape(img.shape[:2]).astype(np.float64).round()


def _normalise(plane: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Subtract the local mean and divide by the local deviation, plus 1 (eq. 1-3).

    The sums are made in float64 and their results rounded to float32. In a flat area that makes the difference from
    the mean exactly zero, where float64 leaves noise of 1e-14, whose sign would affect the fit of the distribution.
    """

    def local_mean(values: np.ndarray) -> np.ndarray:
        if window.shape[1] == 1:
            filtered = cv2.sepFilter2D(values, cv2.CV_64F, window, window, borderType=cv2.BORDER_REPLICATE)
        else:
            filtered = cv2.filter2D(values, cv2.CV_64F, cv2.flip(window, -1), borderType=cv2.BORDER_REPLICATE)
        return filtered.astype(np.float32)

    mean = local_mean(plane)
    deviation = np.sqrt(np.abs(local_mean(plane * plane) - mean * mean))
    return ((plane.astype(np.float32) - mean) / (deviation + 1)).astype(np.float64)


def _block_features(plane: np.ndarray, block_height: int, block_width: int) -> np.ndarray:
    """The 18 features of each block, ``(blocks, 18)``: shape and scale of the values (eq. 4), and for each of four
    directions shape, mean, left and right scale of the products of neighbours (eq. 5-8)."""
    rows, columns = plane.shape[0] // block_height, plane.shape[1] // block_width
    blocks = plane.reshape(rows, block_height, columns, block_width).swapaxes(1, 2)
    blocks = blocks.reshape(-1, block_height, block_width)
    shape, left, right = _fit_aggd(blocks)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _fit_aggd(blocks * np.roll(blocks, shift, axis=(1, 2)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return np.stack(features, axis=1)


def _fit_aggd(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit an asymmetric generalised Gaussian distribution to each block by matching its moments.

    Lasmar, Stitou and Berthoumieu, "Multiscale skewed heavy tailed model for texture analysis", ICIP 2009.

    Args:
        blocks: ``(blocks, height, width)``.

    Returns:
        Shape, left scale and right scale, ``(blocks,)`` each. A block without negative or without positive values
        has scales that are not finite, and the least shape.
    """
    values = blocks.reshape(len(blocks), -1)
    squares = values * values
    negative, positive = values < 0, values > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sqrt((squares * negative).sum(axis=1) / negative.sum(axis=1))
        right = np.sqrt((squares * positive).sum(axis=1) / positive.sum(axis=1))
        ratio = left / right
        moment_ratio = np.abs(values).mean(axis=1) ** 2 / squares.mean(axis=1)
        target = moment_ratio * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moment_ratios = _shape_table()
    upper = np.searchsorted(moment_ratios, target).clip(1, len(shapes) - 1)
    nearest = np.where(target - moment_ratios[upper - 1] <= moment_ratios[upper] - target, upper - 1, upper)
    shape = shapes[np.where(np.isnan(target), 0, nearest)]
    to_scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * to_scale, right * to_scale


@functools.lru_cache(maxsize=1)
def _shape_table() -> tuple[np.ndarray, np.ndarray]:
    """Shapes from 0.2 to 10 in steps of 0.001, and the ratio (E|x|)² / E[x²] of each, which grows with the shape."""
    shapes = np.arange(200, 10001) / 1000
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


@functools.lru_cache(maxsize=1)
def _pristine_model() -> tuple[np.ndarray, np.ndarray]:
    with np.load(_PRISTINE_FILE, allow_pickle=False) as arrays:
        return arrays["mean"], arrays["covariance"]


def _distance(features: np.ndarray, pristine_mean: np.ndarray, pristine_covariance: np.ndarray) -> float:
    """Eq. 10 between the Gaussian fitted to the blocks' features ``(blocks, 36)`` and that of pristine photographs."""
    complete = features[np.isfinite(features).all(axis=1)]
    if len(complete) < 2:
        return math.nan
    # As in the authors' code, a block without texture contributes its finite features to the mean only.
    offset = np.nanmean(features, axis=0) - pristine_mean
    covariance = np.cov(complete, rowvar=False)
    return math.sqrt(offset @ np.linalg.pinv((covariance + pristine_covariance) / 2) @ offset)
