"""Degraded copies of images: blur, resize, noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR_SIDES = (3, 5, 7, 9, 11)
BLUR_SIGMA = (0.1, 2.0)
UP_SCALE, DOWN_SCALE, UP_PROBABILITY = (1.0, 1.5), (0.5, 1.0), 0.25
NOISE_SIGMA = (1.0, 30.0)  # of 255
RESIZE_MODES = ("area", "bilinear", "bicubic")


def check_probabilities(**values: float) -> None:
    """Refuse numbers outside [0, 1].

    Raises:
        ValueError: With the option's name.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, not {value}")


class Degradation:
    """One random degradation of a batch: blur, resize, noise, in this order, each with its probability.

    Source: the release of DCKD (arXiv 2412.08939). Kernel, scale and interpolation are drawn once for the batch, noise
    levels for each image. Everything is drawn from PyTorch's generator, so that a resumed run draws the same.

    Args:
        blur: Probability of a Gaussian blur; sides odd in 3..11 and σ in [0.1, 2] for each axis.
        resize: Probability of a resize up by [1, 1.5] (a quarter of the time) or down by [0.5, 1], and back in the end.
        noise: Probability of Gaussian noise of σ in [1, 30]/255, clipped to [0, 1].
        gray: Probability, for each image, that the noise is the same in all channels.

    Raises:
        ValueError: If one of them is not in [0, 1].
    """

    def __init__(self, blur: float = 1.0, resize: float = 0.0, noise: float = 0.0, gray: float = 0.0) -> None:
        check_probabilities(
            gaussian_blur_prob=blur, resize_prob=resize, gaussian_noise_prob=noise, gray_noise_prob=gray
        )
        self.blur = blur
        self.resize = resize
        self.noise = noise
        self.gray = gray

    def __call__(self, images: Tensor) -> Tensor:
        """Degrade images ``(B, C, H, W)`` in [0, 1]."""
        size = images.shape[-2:]
        if _chance(self.blur):
            sides = [BLUR_SIDES[int(torch.randint(len(BLUR_SIDES), ()))] for _ in range(2)]
            images = gaussian_blur(images, sides, [_uniform(*BLUR_SIGMA) for _ in range(2)])
        if _chance(self.resize):
            scale = _uniform(*UP_SCALE) if _chance(UP_PROBABILITY) else _uniform(*DOWN_SCALE)
            images = _interpolate(images, (max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)))
        if _chance(self.noise):
            images = add_noise(images, self.gray)
        return images if images.shape[-2:] == size else _interpolate(images, size)


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _interpolate(images: Tensor, size: tuple[int, int]) -> Tensor:
    mode = RESIZE_MODES[int(torch.randint(len(RESIZE_MODES), ()))]
    return F.interpolate(images, size=size, mode=mode, align_corners=None if mode == "area" else False)


def gaussian_blur(images: Tensor, sides: list[int], sigmas: list[float]) -> Tensor:
    """Blur ``(B, C, H, W)`` with a separable Gaussian of the given sides and σ (vertical, horizontal); the border is
    reflected, or repeated where the image is too small for that."""
    channels = images.shape[1]
    for axis, (side, sigma) in enumerate(zip(sides, sigmas)):
        steps = torch.arange(side, dtype=images.dtype, device=images.device) - side // 2
        kernel = torch.exp(-(steps**2) / (2 * sigma**2))
        shape = (side, 1) if axis == 0 else (1, side)
        weight = (kernel / kernel.sum()).view(1, 1, *shape).expand(channels, 1, *shape)
        pad = (0, 0, side // 2, side // 2) if axis == 0 else (side // 2, side // 2, 0, 0)
        mode = "reflect" if images.shape[2 + axis] > side // 2 else "replicate"
        images = F.conv2d(F.pad(images, pad, mode=mode), weight, groups=channels)
    return images


def add_noise(images: Tensor, gray: float) -> Tensor:
    """Add Gaussian noise to ``(B, C, H, W)`` in [0, 1], its σ drawn for each image, and clip."""
    batch = len(images)
    low, high = NOISE_SIGMA
    sigma = (low + (high - low) * torch.rand(batch, 1, 1, 1)) / 255
    is_gray = torch.rand(batch, 1, 1, 1) < gray
    noise = torch.where(is_gray, torch.randn(batch, 1, *images.shape[2:]), torch.randn(images.shape))
    return (images + (sigma * noise).to(images)).clamp(0, 1)
