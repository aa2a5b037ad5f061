"""Degradations by the pixel: Gaussian noise and JPEG compression.

Images are ``(H, W, C)``, RGB or grey, float32 in [0, 1]; they are not changed.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from basicsr.utils.ranges import Probability
from basicsr.utils.registry import DEGRADATION_REGISTRY

from .degradation_parameters import Levels, Qualities, Rng, draw, draw_integer


@DEGRADATION_REGISTRY.register()
def gaussian_noise(
    image: np.ndarray,
    rng: Rng,
    sigma: Levels,
    gray: Probability = 0.0,
    store: Literal["float", "clip", "uint8"] = "float",
) -> np.ndarray:
    """White Gaussian noise.

    Args:
        image: The image.
        rng: What it draws from.
        sigma: Standard deviation, where white is 255; a range for blind denoising.
        gray: Probability that the noise is the same in all channels.
        store: ``float``: the sum as it is, as the tables of DnCNN, FFDNet and Restormer are made; ``clip``: clipped to
            [0, 1]; ``uint8``: clipped and rounded to 8 bits, as an image file stores it.
    """
    level = draw(sigma, rng) / 255
    same = gray > 0 and rng.uniform() < gray
    noise = rng.normal(0, level, (*image.shape[:2], 1) if same else image.shape)
    noisy = image + noise
    if store != "float":
        noisy = np.clip(noisy, 0, 1)
    if store == "uint8":
        noisy = np.rint(noisy * 255) / 255
    return noisy.astype(np.float32)


@DEGRADATION_REGISTRY.register()
def jpeg(image: np.ndarray, rng: Rng, quality: Qualities) -> np.ndarray:
    """JPEG compression by OpenCV, with chroma at half the resolution; a grey image as a grey JPEG.

    Args:
        image: The image; it is clipped to [0, 1] and rounded to 8 bits first.
        rng: What it draws from.
        quality: Quality of the compression.
    """
    flag = [cv2.IMWRITE_JPEG_QUALITY, draw_integer(quality, rng)]
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)[..., ::-1]
    content = cv2.imencode(".jpg", np.ascontiguousarray(pixels), flag)[1]
    grey = image.shape[2] == 1
    decoded = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    decoded = decoded[..., None] if grey else decoded[..., ::-1]
    return decoded.astype(np.float32) / np.float32(255)
