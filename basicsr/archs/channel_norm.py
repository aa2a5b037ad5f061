"""Layer norm over the channels of images, in the form that is fastest where it runs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise the channels of each pixel: ``(x − mean) / sqrt(variance + eps) · weight + bias``.

    Without a bias the mean is not subtracted either: the variance is about the mean, but ``x`` is what it divides
    (the "bias-free" norm of Restormer).

    On a CPU, contiguous float32 images are normalised where they lie, by two means over the channels, with gradients
    written out (:class:`_ChannelNorm`). PyTorch's layer norm wants the channels last, and its way over a permuted image
    took 1.2 to 4 times as long forward (an AMD processor with AVX2, one thread, 32 to 384 channels);
    ``torch.var_mean`` took longer than both. Everywhere else layer norm is used: it sums 16-bit numbers in float32.

    Args:
        x: (B, C, H, W).
        weight: (C).
        bias: (C), or None.
        eps: Added to the variance.

    Returns:
        (B, C, H, W), in the dtype of ``x``; float32 where autocast makes layer norms so.
    """
    exact = x.dtype in (torch.float32, torch.float64)
    if bias is None:
        values = x if exact else x.float()
        scale = _centre(values, eps)[1]
        return (values * scale * weight.view(1, -1, 1, 1)).to(x.dtype)
    if not (exact and x.device.type == "cpu" and x.is_contiguous()) or torch.compiler.is_compiling():
        return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps).permute(0, 3, 1, 2)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        return _ChannelNorm.apply(x, weight, bias, eps)
    return _affine(_normalised(x, eps)[0], weight, bias)


def _centre(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``x − mean``, and the inverse of the standard deviation (B, 1, H, W)."""
    centred = x - x.mean(dim=1, keepdim=True)
    return centred, (centred.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def _normalised(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    centred, scale = _centre(x, eps)
    return centred.mul_(scale), scale


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addcmul(bias.view(1, -1, 1, 1), x, weight.view(1, -1, 1, 1))


class _ChannelNorm(torch.autograd.Function):
    """:func:`channel_norm` with a bias, with its gradient written out: it keeps one tensor of the image's size for the
    backward pass instead of three, and was measured 1.5 to 4 times as fast as what autograd makes of the formula."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normalised, scale = _normalised(x, eps)
        ctx.save_for_backward(normalised, scale, weight)
        return _affine(normalised, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normalised, scale, weight = ctx.saved_tensors
        per_channel = weight.view(1, -1, 1, 1)
        product = grad * normalised
        weight_grad = product.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[1] else None
        bias_grad = grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        if not ctx.needs_input_grad[0]:
            return None, weight_grad, bias_grad, None
        # scale · (g − mean(g) − x̂ · mean(g · x̂)) with g = grad · weight
        along = product.mul_(per_channel).mean(dim=1, keepdim=True)
        inner = grad * per_channel
        inner -= inner.mean(dim=1, keepdim=True)
        return inner.addcmul_(normalised, along, value=-1).mul_(scale), weight_grad, bias_grad, None


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel (NAFNet's).

    Args:
        channels: Their number.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return channel_norm(x, self.weight, self.bias, self.eps)
