"""Exponential moving average of a network, parameters and buffers, in a handful of kernels."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_ema(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """``ema = decay · ema + (1 − decay) · net`` in place.

    Parameters are averaged. Buffers of floating point type (such as batch-norm statistics) are averaged as well;
    integer buffers are copied. ``decay = 0`` copies everything exactly.

    Args:
        ema: The averaged network; same class and shapes as ``net``.
        net: The trained network, without any wrapper.
        decay: In [0, 1].
    """
    averages, values = [], []
    for target, source in zip(ema.parameters(), net.parameters()):
        if decay > 0:
            averages.append(target)
            values.append(source.detach())
        else:
            target.copy_(source)
    if averages:
        torch._foreach_lerp_(averages, values, 1 - decay)
    for target, source in zip(ema.buffers(), net.buffers()):
        if target.is_floating_point() and decay > 0:
            # Equal values are kept: lerp would turn a mask of −inf into NaN.
            target.copy_(torch.where(target == source, target, torch.lerp(target, source, 1 - decay)))
        else:
            target.copy_(source)
