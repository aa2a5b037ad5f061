"""Feeding a network whose input must be a multiple of something."""

from __future__ import annotations

from torch import Tensor, nn

from basicsr.archs.arch_util import pad_to_multiple


def run_padded(net: nn.Module, lq: Tensor, multiple: int) -> Tensor:
    """``net(lq)`` with ``lq`` reflect-padded to a multiple and the result cropped back.

    The scale of the network is read off its output, so the same call serves restoration and super-resolution.

    Args:
        net: The network.
        lq: ``(B, C, h, w)``.
        multiple: What both sides of its input must be a multiple of; 1 for anything.
    """
    if multiple <= 1:
        return net(lq)
    padded = pad_to_multiple(lq, multiple)
    output = net(padded)
    height = lq.shape[-2] * output.shape[-2] // padded.shape[-2]
    width = lq.shape[-1] * output.shape[-1] // padded.shape[-1]
    return output[..., :height, :width]
