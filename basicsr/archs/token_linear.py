"""A linear layer for tokens, in the form that is fastest where it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr.utils.fastest import Forms, measurable, power_of_two
from basicsr.utils.machine import cpu_capability

FORMS = Forms("linear", "linear", "conv")
TIMED_TOKENS = 4096  # more make no form relatively faster
DEFAULT = "conv" if cpu_capability() == "AVX512" else "linear"  # unless it is measured


class TokenLinear(nn.Linear):
    """A linear layer on the last axis, computed as a 1×1 convolution where that is faster.

    PyTorch's float32 matrix product on a CPU is MKL's, its convolution oneDNN's. For tokens of a few hundred channels
    the latter was measured twice as fast on an AMD processor with AVX-512, forward and backward; on one with AVX2 it is
    somewhat faster forward and slower backward. So the form is measured (:mod:`basicsr.utils.fastest`).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features)."""
        if x.is_cuda or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return conv_linear(x, self.weight, self.bias) if self._form(x) == "conv" else super().forward(x)

    def _form(self, x: Tensor) -> str:
        if not measurable(x):
            return DEFAULT
        tokens = min(power_of_two(x.numel() // self.in_features), TIMED_TOKENS)
        grad = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        shape = (tokens, self.in_features, self.out_features)
        case = (*(f"{size}{name}" for size, name in zip(shape, ("tokens", "in", "out"))), "grad" if grad else "forward")
        return FORMS.fastest(x.dtype, case, DEFAULT, partial(_computations, *shape, grad))


def conv_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer as a 1×1 convolution: tokens are the pixels of channels-last images.

    Args:
        x: (…, in_features).
        weight: (out_features, in_features).
        bias: (out_features) or None.

    Returns:
        (…, out_features).
    """
    images = 16 if x[..., 0].numel() % 16 == 0 else 1  # on one thread, PyTorch gives oneDNN only batches of 16 or more
    image = x.reshape(images, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(image, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def _computations(tokens: int, in_features: int, out_features: int, grad: bool) -> dict[str, Callable[[], Any]]:
    """A linear layer in each form, on made-up tokens, to be timed."""
    x = torch.linspace(-1, 1, tokens * in_features).view(tokens, in_features).requires_grad_(grad)
    weight = torch.linspace(-1, 1, out_features * in_features).view(out_features, in_features).requires_grad_(grad)
    bias = torch.zeros(out_features, requires_grad=grad)

    def compute(linear: Callable[..., Tensor]) -> None:
        out = linear(x, weight, bias)
        if grad:
            torch.autograd.grad(out, (x, weight, bias), out.detach())

    return {"linear": partial(compute, F.linear), "conv": partial(compute, conv_linear)}
