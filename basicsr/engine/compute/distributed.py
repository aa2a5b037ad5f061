"""Keeps the ranks equal: modules and gradients outside DDP, and the order of DDP's own sums."""

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
    """Broadcast rank 0's parameters and buffers to all ranks. Does nothing outside a process group."""
    if get_dist_info()[1] > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, src=0)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks, in one message. An absent gradient is taken as zero.

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
    """Broadcast rank 0's floating-point tensors in one message. Does nothing outside a process group."""
    if get_dist_info()[1] == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.broadcast(flat, src=0)
    for tensor, values in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(values.view_as(tensor))


def batch_statistics(net: nn.Module) -> list[Tensor]:
    """The running means and variances of batch norm layers, which differ between ranks."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    return [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var) if buffer is not None]


def union_of_ranks(names: Sequence[str]) -> list[str]:
    """The union of all ranks' names, in the same order on every rank. Every rank must call it."""
    gathered: list[Any] = [None] * get_dist_info()[1]
    dist.all_gather_object(gathered, list(names))
    return list(dict.fromkeys(name for theirs in gathered for name in theirs))


def rebuild_ddp_buckets(net: DistributedDataParallel) -> None:
    """Make DDP rebuild its gradient buckets now, from a backward pass that is always the same.

    DDP rebuilds its buckets after the first backward pass, in the order in which gradients arrived. The position of a
    gradient in a bucket decides the order in which three or more ranks add it. Without this, the first iteration after
    a resume would use the initial buckets, and differ in the last bits from that of an uninterrupted run.
    """
    module = net.module
    module.forward = lambda: sum(p.sum() for p in module.parameters() if p.requires_grad)
    try:
        net().backward()
    finally:
        del module.forward  # the class's own forward is used again
    net.zero_grad(set_to_none=True)
