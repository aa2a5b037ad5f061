"""Keeping ranks equal: modules outside DDP, and the arithmetic of DDP itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
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


@torch.no_grad()
def broadcast_tensors(tensors: Sequence[Tensor]) -> None:
    """Give every rank rank 0's values of floating-point tensors, in one message; nothing outside a process group."""
    if get_dist_info()[1] == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.broadcast(flat, src=0)
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(values.view_as(tensor))


def batch_statistics(net: nn.Module) -> list[Tensor]:
    """The running means and variances of batch norm layers, which each rank takes from its own part of the batch."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    return [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var) if buffer is not None]


def union_of_ranks(names: Sequence[str]) -> list[str]:
    """The names that any rank has, in the same order on all. Every rank must call it."""
    gathered: list[Any] = [None] * get_dist_info()[1]
    dist.all_gather_object(gathered, list(names))
    return list(dict.fromkeys(name for theirs in gathered for name in theirs))


def rebuild_ddp_buckets(net: DistributedDataParallel) -> None:
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
