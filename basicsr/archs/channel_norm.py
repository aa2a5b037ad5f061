"""Layer norm over the channels of images, in the form that is fastest where it runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise the channels of each pixel: ``(x − mean) / sqrt(variance + eps) · weight + bias``.

    Without a bias the mean is not subtracted either: the variance is about the mean, but ``x`` is what it divides
    (the "bias-free" norm of Restormer).

    On a CPU, contiguous float32 images are normalised where they lie, by two means over the channels. PyTorch's layer
    norm wants the channels last, and its way over a permuted image took 1.2 to 4 times as long forward and 0.9 to 1.5
    times with the backward pass (an AMD processor with AVX2, one thread, 32 to 384 channels); ``torch.var_mean`` took
    longer than both. Everywhere else layer norm is used: it sums 16-bit numbers in float32.

    Args:
        x: (B, C, H, W).
        weight: (C).
        bias: (C), or None.
        eps: Added to the variance.

    Returns:
        (B, C, H, W), in the dtype of ``x``; float32 where autocast makes layer norms so.
    """
    exact = x.dtype in (torch.float32, torch.float64)
    if bias is not None and not (exact and x.device.type == "cpu" and x.is_contiguous()):
        return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps).permute(0, 3, 1, 2)
    values = x if exact else x.float()
    centred = values - values.mean(dim=1, keepdim=True)
    scale = (centred.square().mean(dim=1, keepdim=True) + eps).rsqrt()
    if bias is None:
        return (values * scale * weight.view(1, -1, 1, 1)).to(x.dtype)
    return centred * scale * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


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
