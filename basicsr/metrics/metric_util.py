"""Preparation of images for metrics: layout, luma, cropping."""

from __future__ import annotations

import cv2
import numpy as np

from basicsr.utils.color_util import RGB_TO_YCBCR, YCBCR_OFFSET
from basicsr.utils.img_util import crop_border as cut_border


def reorder_image(img: np.ndarray, input_order: str = "HWC") -> np.ndarray:
    """Bring an image to ``(H, W, C)``.

    Args:
        img: Image ``(H, W)``, or ``(H, W, C)`` or ``(C, H, W)`` as ``input_order`` says.
        input_order: ``HWC`` or ``CHW``.

    Returns:
        A view ``(H, W, C)``.

    Raises:
        ValueError: For another order or number of dimensions.
    """
    if input_order not in ("HWC", "CHW"):
        raise ValueError(f"input_order must be HWC or CHW, not {input_order}")
    if img.ndim not in (2, 3):
        raise ValueError(f"a metric takes an image of two or three dimensions, not the shape {img.shape}")
    if img.ndim == 2:
        return img[..., None]
    return img.transpose(1, 2, 0) if input_order == "CHW" else img


def to_y_channel(img: np.ndarray) -> np.ndarray:
    """The luma of a BGR image by MATLAB's definition, not rounded.

    Args:
        img: Image ``(H, W, C)`` in [0, 255], BGR if there are three channels.

    Returns:
        float64 ``(H, W, 1)`` in [16, 235]; an image of another number of channels is only converted to float64.
    """
    img = img.astype(np.float64)
    if img.ndim != 3 or img.shape[2] != 3:
        return img
    # One pass over the image: bgr2ycbcr, which takes [0, 1], would need three.
    blue_green_red = RGB_TO_YCBCR[:1, ::-1] / 255.0
    return cv2.transform(img, np.hstack([blue_green_red, YCBCR_OFFSET[None, :1]]))[..., None]


class ShapeMismatchError(ValueError, AssertionError):
    """Images of different shapes; also an AssertionError, which BasicSR raises."""


def prepare_pair(
    img: np.ndarray, img2: np.ndarray, crop_border: int, input_order: str, test_y_channel: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Two images as a full-reference metric compares them: ``(H, W, C)``, cropped, float64, luma on request.

    Raises:
        ShapeMismatchError: If their shapes differ.
        ValueError: If the border leaves nothing.
    """
    if img.shape != img2.shape:
        raise ShapeMismatchError(f"a metric compares images of one shape, not {img.shape} and {img2.shape}")
    pair = []
    for picture in (img, img2):
        picture = cut_border(reorder_image(picture, input_order), crop_border)
        pair.append(to_y_channel(picture) if test_y_channel else picture.astype(np.float64))
    return pair[0], pair[1]
