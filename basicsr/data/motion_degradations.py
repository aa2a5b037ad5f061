"""Motion blur by a shaking camera, synthetic (ours).

Images are ``(H, W, C)``, float32 in [0, 1]; they are not changed.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from basicsr.utils.registry import DEGRADATION_REGISTRY

from .degradation_parameters import Fractions, Lengths, Rng, draw

GAMMA = 2.2  # light adds up on the sensor, not in stored values
_STEPS = 96  # of a trajectory
_POINTS_PER_PIXEL = 8  # of a kernel


@DEGRADATION_REGISTRY.register()
def motion_blur(
    image: np.ndarray, rng: Rng, length: Lengths = (5.0, 30.0), shake: Fractions = (0.0, 1.0)
) -> np.ndarray:
    """Blur by the path of a shaking camera, the same in all of the image; light is added up linearly (ours).

    Args:
        image: The image; values beyond [0, 1] are clipped.
        rng: What it draws from.
        length: Length of the path, in pixels.
        shake: How much its direction wanders: 0 for a straight line.
    """
    kernel = trajectory_kernel(camera_trajectory(draw(length, rng), draw(shake, rng), rng))
    light = np.clip(image, 0, 1).astype(np.float32) ** GAMMA
    blurred = cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)
    return np.clip(blurred, 0, 1) ** np.float32(1 / GAMMA)


def camera_trajectory(length: float, shake: float, rng: Rng) -> np.ndarray:
    """A random path (ours): its direction and speed wander, with a few sudden turns.

    Args:
        length: Its length, in pixels.
        shake: How much the direction wanders, in [0, 1].
        rng: What it draws from.

    Returns:
        Points ``(N, 2)``, (x, y) in pixels, their mean at (0, 0).
    """
    turns = rng.normal(0, shake * 0.12, _STEPS)
    sudden = rng.uniform(0, 1, _STEPS) < shake * 3 / _STEPS
    turns = turns + sudden * rng.uniform(-1.6, 1.6, _STEPS)
    bend = rng.normal(0, shake * 1.5 / _STEPS)
    angles = rng.uniform(0, 2 * math.pi) + np.cumsum(turns + bend)
    speed = np.exp(np.cumsum(rng.normal(0, 0.08, _STEPS)))  # where the camera is slow, the kernel is bright
    steps = (speed / speed.sum() * length)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return points - points.mean(axis=0)


def trajectory_kernel(points: np.ndarray) -> np.ndarray:
    """The blur of a path that is passed in equal times from point to point.

    Args:
        points: ``(N, 2)``, (x, y) in pixels from the middle.

    Returns:
        Kernel ``(K, K)``, float32, K odd, not negative, its sum 1.
    """
    longest = float(np.linalg.norm(np.diff(points, axis=0), axis=1).max())
    parts = max(math.ceil(longest * _POINTS_PER_PIXEL), 1)
    fractions = (np.arange(parts)[:, None, None] + 0.5) / parts
    between = (points[None, :-1] * (1 - fractions) + points[None, 1:] * fractions).reshape(-1, 2)
    radius = math.ceil(float(np.abs(between).max())) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    corner = np.floor(between).astype(int)
    share = between - corner
    for right in (0, 1):
        for down in (0, 1):
            weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1])
            np.add.at(kernel, (corner[:, 1] + radius + down, corner[:, 0] + radius + right), weight)
    return (kernel / kernel.sum()).astype(np.float32)
