"""Keeping ranks equal: modules outside DDP, and the arithmetic of DDP itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from basicsr.utils.dist_util import get_dist_info


@torch.no_grad()
def broadcast_module(module: nn.Module) -> None:
    """Give every rank rank 0's parameters and buffers; nothing outside a process group."""
    if get_dist_info()[1] > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, src=0)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks, in one message; an absent one counts as zero.

    Every rank must call it with the same parameters.
    """
    world = get_dist_info()[1]
    if world == 1 or not parameters:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= world
    for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters])):
        parameter.grad = grad.view_as(parameter).clone()


def settle_buckets(net: DistributedDataParallel) -> None:
    """Let DDP choose its final grouping of the gradients now, from a backward pass that is always the same.

    DDP regroups them after its first backward pass, by the order in which they came. Where in a message a gradient
    lies decides the order in which three or more ranks add it, so the first iteration after a resume, which would
    still have the initial grouping, would differ in the last bits from the same iteration of an uninterrupted run.
    """
    module = net.module
    module.forward = lambda: sum(p.sum() for p in module.parameters() if p.requires_grad)
    try:
        net().backward()
    finally:
        del module.forward  # the class's own is seen again
    net.zero_grad(set_to_none=True)
