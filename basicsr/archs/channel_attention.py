"""Attention between channels, in the form that is fastest where it runs.

Multi-Dconv head transposed attention of Restormer (Zamir et al., CVPR 2022, arXiv 2111.09881), equation 1:
``softmax(τ · q̂ k̂ᵀ) v``, where the rows of q̂ and k̂ are channels of unit length. Shape suffixes: B images, H heads,
C channels of a head, N pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.fastest import Forms, measurable, power_of_two

from .attention import EMULATED

ChannelAttentionForm = Literal["matmul", "sdpa"]

FORMS = Forms("channel_attention", "matmul", "sdpa")
TIMED_PIXELS = 4096  # more make no form relatively faster
EPS = 1e-12  # the least length that a channel is divided by, as in torch.nn.functional.normalize


def channel_scores(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """``τ · q̂ k̂ᵀ``, the cosines between channels times the temperature.

    In float32 and float64 the products are divided by the lengths: that saves writing q̂ and k̂, which are C times as
    large, and was measured 1.2 to 4 times as fast. With 16 bits they might overflow, so the channels are divided first.

    Args:
        q: (B, H, C, N).
        k: (B, H, C, N).
        temperature: (H, 1, 1).

    Returns:
        (B, H, C, C).
    """
    if q.dtype not in (torch.float32, torch.float64):
        return (F.normalize(q, dim=-1, eps=EPS) @ F.normalize(k, dim=-1, eps=EPS).mT) * temperature
    q_length = torch.linalg.vector_norm(q, dim=-1, keepdim=True).clamp_min(EPS)
    k_length = torch.linalg.vector_norm(k, dim=-1, keepdim=True).clamp_min(EPS)
    return (q @ k.mT) * (temperature / (q_length * k_length.mT))


def channel_attention(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, form: ChannelAttentionForm | None = None
) -> Tensor:
    """``softmax(τ · q̂ k̂ᵀ) v``.

    Args:
        q: (B, H, C, N).
        k: (B, H, C, N).
        v: (B, H, C, N).
        temperature: (H, 1, 1).
        form: How it is computed; the fastest if None. The results agree to rounding.

    Returns:
        (B, H, C, N).
    """
    form = fastest_form(q) if form is None else form
    if form == "matmul":
        return channel_scores(q, k, temperature).softmax(dim=-1) @ v
    q, k = F.normalize(q, dim=-1, eps=EPS) * temperature, F.normalize(k, dim=-1, eps=EPS)
    return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, scale=1.0)


def fastest_form(q: Tensor) -> ChannelAttentionForm:
    """The form to use for such queries (B, H, C, N).

    On a CPU it is measured (:mod:`basicsr.utils.fastest`). Unless it is, it is matrix products; but the fused kernel
    where the CPU only emulates the dtype (there it was measured 14 to 28 times as fast forward). The fused kernels of
    CUDA are for heads of at most 256 numbers, and here a channel has as many as the image has pixels.
    """
    default: ChannelAttentionForm = "sdpa" if q.device.type == "cpu" and q.dtype in EMULATED else "matmul"
    if not measurable(q) or torch.is_autocast_enabled("cpu"):
        return default
    pixels = min(power_of_two(q.shape[-1]), TIMED_PIXELS)
    grad = torch.is_grad_enabled() and q.requires_grad
    shape = (3, 1, *q.shape[1:3], pixels)
    case = (*(f"{size}{name}" for size, name in zip(shape[2:], "HCN")), "grad" if grad else "forward")
    return FORMS.fastest(q.dtype, case, default, partial(_computations, shape, q.dtype, grad))  # type: ignore[return-value]


def _computations(shape: tuple[int, ...], dtype: torch.dtype, grad: bool) -> dict[str, Callable[[], Any]]:
    """Attention in each form, on made-up channels of such a shape, to be timed."""
    qkv = torch.linspace(-1, 1, math.prod(shape)).view(shape).to(dtype).requires_grad_(grad)
    temperature = torch.ones(shape[2], 1, 1, dtype=dtype, requires_grad=grad)
    grad_out = qkv[0].detach()

    def compute(form: ChannelAttentionForm) -> None:
        out = channel_attention(*qkv.unbind(0), temperature, form=form)
        if grad:
            torch.autograd.grad(out, (qkv, temperature), grad_out)

    return {form: partial(compute, form) for form in FORMS.forms}
