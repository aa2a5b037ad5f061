"""Runs a network that does not accept every input size."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from basicsr.archs.arch_util import pad_to_size
from basicsr.archs.size_requirement import SizeRequirement


def run_padded(net: Callable[[Tensor], Tensor], lq: Tensor, requirement: SizeRequirement) -> Tensor:
    """``net(lq)`` with ``lq`` reflect-padded at the bottom and right, and the result cropped back.

    The scale follows from the sizes of input and output, so the same call serves restoration and super-resolution.

    Args:
        net: The network, or a function that runs it.
        lq: ``(B, C, h, w)``.
        requirement: What its input's size must meet.
    """
    padded = pad_to_size(lq, *requirement.padded(*lq.shape[-2:]))
    output = net(padded)
    if padded.shape == lq.shape:
        return output
    height = lq.shape[-2] * output.shape[-2] // padded.shape[-2]
    width = lq.shape[-1] * output.shape[-1] // padded.shape[-1]
    return output[..., :height, :width]
