"""Feeding a network whose input must be a multiple of something."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend ``(B, C, H, W)`` at the right and bottom by reflection until H and W are multiples of ``multiple``.

    An image too small to be reflected far enough is reflected again and again.
    """
    pad_h, pad_w = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    while pad_h or pad_w:
        # A side of one pixel has nothing to reflect; its only continuation is itself.
        if min(x.shape[-2:]) == 1:
            return F.pad(x, (0, pad_w, 0, pad_h), mode="replicate")
        step_h, step_w = min(pad_h, x.shape[-2] - 1), min(pad_w, x.shape[-1] - 1)
        x = F.pad(x, (0, step_w, 0, step_h), mode="reflect")
        pad_h, pad_w = pad_h - step_h, pad_w - step_w
    return x


def run_padded(net: nn.Module, lq: Tensor, multiple: int) -> Tensor:
    """``net(lq)`` with ``lq`` padded to a multiple and the result cropped back.

    The scale of the network is read off its output, so the same call serves restoration and super-resolution.
    """
    if multiple <= 1:
        return net(lq)
    padded = pad_to_multiple(lq, multiple)
    output = net(padded)
    height = lq.shape[-2] * output.shape[-2] // padded.shape[-2]
    width = lq.shape[-1] * output.shape[-1] // padded.shape[-1]
    return output[..., :height, :width]
