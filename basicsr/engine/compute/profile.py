"""The cost of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def count_flops(net: nn.Module, x: Tensor) -> int:
    """Floating point operations of one forward pass: convolutions, matrix products and attention.

    A multiplication and an addition count as two.

    Args:
        net: The network.
        x: Its input, ``(B, C, h, w)``.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        net(x)
    return counter.get_total_flops()
