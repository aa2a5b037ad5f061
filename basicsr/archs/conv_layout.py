"""Chooses the memory layout of images that trained convolutions read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.fastest import Forms, measurable
from basicsr.utils.machine import cpu_capability

FORMS = Forms("layout", "channels_last", "contiguous")
TIMED_CHANNELS, TIMED_SIDE = 64, 128  # of the layer that is timed; on smaller images the layouts differ less
DEFAULT = "channels_last" if cpu_capability() == "AVX512" else "contiguous"  # on a CPU, unless it is measured


def to_fastest_layout(image: Tensor) -> Tensor:
    """A channels-last image in the layout in which the convolutions that follow are trained faster.

    Forward and in the gradient of the image, oneDNN's convolutions take about the same time in both layouts. The
    gradient of the weights takes up to six times as long on channels-last images with AVX2, the more the larger the
    image. Without gradients, and elsewhere than on a CPU, the image stays as it is.

    Args:
        image: (B, C, H, W), channels-last.
    """
    if image.device.type != "cpu" or not (torch.is_grad_enabled() and image.requires_grad):
        return image
    form = DEFAULT
    if measurable(image):
        case = (f"{TIMED_CHANNELS}channels", f"{TIMED_SIDE}pixels")
        form = FORMS.fastest(image.dtype, case, DEFAULT, partial(_computations, image.dtype))
    return image.contiguous() if form == "contiguous" else image


def _computations(dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """The gradient of a convolution's weights for an image in each layout, to be timed."""
    channels, side = TIMED_CHANNELS, TIMED_SIDE
    image = torch.linspace(-1, 1, channels * side * side).view(1, channels, side, side).to(dtype)
    weight = torch.full((channels, channels, 3, 3), 0.01, dtype=dtype, requires_grad=True)

    def gradient_for(x: Tensor) -> Callable[[], Any]:
        out = F.conv2d(x, weight, padding=1)
        return partial(torch.autograd.grad, out, weight, x, retain_graph=True)

    channels_last = image.contiguous(memory_format=torch.channels_last)
    return {"channels_last": gradient_for(channels_last), "contiguous": gradient_for(image)}
