"""Haze, rain and snow, synthetic (ours).

Images are ``(H, W, C)``, RGB or grey, float32 in [0, 1]; they are not changed. Lengths are in pixels: an image and a
crop of it get flakes and streaks of one size.
"""

from __future__ import annotations

import cv2
import numpy as np

from basicsr.utils.registry import DEGRADATION_REGISTRY

from .degradation_parameters import Angles, Fractions, Lengths, Rng, Thicknesses, draw

_SHIFT = 4  # OpenCV draws at positions of 1/16 of a pixel


@DEGRADATION_REGISTRY.register()
def haze(image: np.ndarray, rng: Rng, beta: Thicknesses = (0.6, 1.8), airlight: Fractions = (0.7, 1.0)) -> np.ndarray:
    """Haze by atmospheric scattering, over a random smooth depth map (ours).

    The ranges by default are those of RESIDE's indoor set (Li et al., TIP 2019); its depth is measured, ours is not.

    Args:
        image: The image.
        rng: What it draws from.
        beta: Scattering coefficient; the farthest point has depth 1.
        airlight: Brightness of the haze, the same in all channels.
    """
    thickness, light = draw(beta, rng), draw(airlight, rng)
    return scatter(image, smooth_depth(*image.shape[:2], rng), thickness, light)


def scatter(image: np.ndarray, depth: np.ndarray, beta: float, airlight: float) -> np.ndarray:
    """I = J·t + A·(1 − t) with t = exp(−β·d) (Narasimhan and Nayar, IJCV 2002, eq. 4).

    Args:
        image: J.
        depth: d, ``(H, W)``.
        beta: β.
        airlight: A.
    """
    transmission = np.exp(-beta * depth)[..., None]
    return (image * transmission + airlight * (1 - transmission)).astype(np.float32)


def smooth_depth(height: int, width: int, rng: Rng) -> np.ndarray:
    """A random smooth depth map ``(H, W)`` in [0.05, 1] (ours), farther towards the top, as outdoors."""
    rise = rng.uniform(0.5, 1.0)
    horizon = rng.uniform(0.0, 0.5)  # above it all is far
    rows = np.linspace(0, 1, height)[:, None]
    depth = rise * np.clip((1 - rows) / (1 - horizon), 0, 1) ** rng.uniform(0.8, 2.0) + np.zeros((height, width))
    for cells, weight in ((3, 0.5), (6, 0.2)):
        grid = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
        depth += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    depth -= depth.min()
    return 0.05 + 0.95 * depth / max(float(depth.max()), 1e-6)


@DEGRADATION_REGISTRY.register()
def rain(
    image: np.ndarray,
    rng: Rng,
    amount: Fractions = (0.2, 1.0),
    length: Lengths = (10.0, 35.0),
    angle: Angles = (-25.0, 25.0),
    opacity: Fractions = (0.5, 1.0),
) -> np.ndarray:
    """Streaks of rain in three layers: far ones are many, short and faint, near ones few, long and broad (ours).

    Args:
        image: The image.
        rng: What it draws from.
        amount: 1 for a downpour.
        length: Length of the streaks of the middle layer.
        angle: Their direction, from the vertical.
        opacity: How much a streak hides of what is behind it.
    """
    number, size, direction, strength = (draw(value, rng) for value in (amount, length, angle, opacity))
    height, width = image.shape[:2]
    clear = np.ones((height, width), np.float32)
    for distance, share, breadth, faint in ((0.6, 1.0, 0.45, 0.8), (1.0, 0.5, 0.7, 1.6), (1.9, 0.08, 1.5, 2.5)):
        reach = size * distance
        layer = _streaks(height, width, number * share * 0.012, reach, direction, rng)
        layer = cv2.GaussianBlur(layer, (0, 0), breadth)
        clear *= 1 - np.clip(layer * strength * faint, 0, 1)
    return _cover(image, 1 - clear, 0.9)


def _streaks(height: int, width: int, density: float, length: float, angle: float, rng: Rng) -> np.ndarray:
    """Lines of random brightness and position ``(H, W)`` in [0, 1], so many per pixel as the density says.

    They begin outside of the image, too, over an area that is several times that of a small crop; so their number
    follows that area, and a crop is covered as densely as a whole image.
    """
    canvas = np.zeros((height, width), np.uint8)
    count = int(density * (width + 2 * length) * (height + 1.3 * length)) + 1
    angles = np.radians(angle + rng.normal(0, 1.5, count))
    reach = length * rng.uniform(0.5, 1.3, count)
    start_x = rng.uniform(-length, width + length, count)
    start_y = rng.uniform(-1.3 * length, height, count)
    end_x, end_y = start_x + reach * np.sin(angles), start_y + reach * np.cos(angles)
    shades = (255 * rng.uniform(0.3, 1, count)).astype(int)
    ends = np.stack([start_x, start_y, end_x, end_y], axis=1) * 2**_SHIFT
    for (x0, y0, x1, y1), shade in zip(np.rint(ends).astype(int).tolist(), shades.tolist()):
        cv2.line(canvas, (x0, y0), (x1, y1), shade, 1, cv2.LINE_AA, _SHIFT)
    return canvas.astype(np.float32) / 255


@DEGRADATION_REGISTRY.register()
def snow(
    image: np.ndarray,
    rng: Rng,
    amount: Fractions = (0.2, 1.0),
    size: Lengths = (1.0, 2.5),
    angle: Angles = (-30.0, 30.0),
    opacity: Fractions = (0.6, 0.95),
) -> np.ndarray:
    """Falling flakes in three layers, far ones many and small, near ones few, large and out of focus (ours).

    Args:
        image: The image.
        rng: What it draws from.
        amount: 1 for heavy snow.
        size: Radius of the flakes of the middle layer.
        angle: Direction in which they fall, from the vertical.
        opacity: How much a flake hides of what is behind it.
    """
    number, radius, direction, strength = (draw(value, rng) for value in (amount, size, angle, opacity))
    height, width = image.shape[:2]
    clear = np.ones((height, width), np.float32)
    for distance, share, faint in ((0.6, 1.0, 0.85), (1.0, 0.4, 1.0), (2.4, 0.06, 0.9)):
        count = int(number * share * 0.012 * height * width) + 1
        layer = _flakes(height, width, count, radius * distance, direction, rng)
        layer = cv2.GaussianBlur(layer, (0, 0), 0.3 + 0.12 * radius * distance**2)
        clear *= 1 - np.clip(layer * strength * faint, 0, 1)
    return _cover(image, 1 - clear, 0.97)


def _flakes(height: int, width: int, count: int, radius: float, angle: float, rng: Rng) -> np.ndarray:
    """Ellipses of random size, shape, brightness and position, drawn out in the direction of falling."""
    canvas = np.zeros((height, width), np.uint8)
    centres = rng.uniform(0, 1, (count, 2)) * (width, height)
    sizes = radius * np.exp(rng.normal(0, 0.35, count))
    stretch = 1 + rng.uniform(0, 0.9, count)
    turn = 90 - angle + rng.normal(0, 12, count)
    shades = (255 * rng.uniform(0.45, 1, count)).astype(int)
    scale = 2**_SHIFT
    for (x, y), small, long, degrees, shade in zip(
        np.rint(centres * scale).astype(int).tolist(),
        np.rint(sizes * scale).astype(int).tolist(),
        np.rint(sizes * stretch * scale).astype(int).tolist(),
        turn.tolist(),
        shades.tolist(),
    ):
        cv2.ellipse(canvas, (x, y), (long, small), degrees, 0, 360, shade, -1, cv2.LINE_AA, _SHIFT)
    return canvas.astype(np.float32) / 255


def _cover(image: np.ndarray, opacity: np.ndarray, brightness: float) -> np.ndarray:
    """An image with something of a brightness in front of it, where it is opaque (H, W) in [0, 1]."""
    return (image * (1 - opacity[..., None]) + brightness * opacity[..., None]).astype(np.float32)
