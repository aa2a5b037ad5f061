"""Building blocks that several networks share, under the names that BasicSR's plug-ins import."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "DropPath",
    "ResidualBlockNoBN",
    "Upsample",
    "default_init_weights",
    "flow_warp",
    "init_linear",
    "make_layer",
    "pad_to_multiple",
    "pad_to_size",
    "pixel_unshuffle",
    "rgb_mean_buffer",
    "to_1tuple",
    "to_2tuple",
    "to_3tuple",
    "to_4tuple",
    "to_ntuple",
    "trunc_normal_",
]


@torch.no_grad()
def default_init_weights(
    module_list: nn.Module | list[nn.Module],
    scale: float = 1,
    bias_fill: float = 0,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Literal["relu", "leaky_relu"] = "leaky_relu",
) -> None:
    """Kaiming-normal initialisation of every convolution and linear layer, multiplied by ``scale``.

    A scale of 0.1 keeps residual branches small at the start (ESRGAN, Wang et al. 2018). Batch norms become the
    identity.

    Args:
        module_list: One module or several; their submodules are included.
        scale: Factor on the weights.
        bias_fill: Value of every bias.
        a: Negative slope of the leaky ReLU that follows.
        mode: Whether the forward or the backward variance is kept.
        nonlinearity: The activation that follows.
    """
    modules = module_list if isinstance(module_list, list) else [module_list]
    for module in (submodule for root in modules for submodule in root.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=a, mode=mode, nonlinearity=nonlinearity).mul_(scale)
        elif isinstance(module, _BatchNorm) and module.affine:
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.constant_(module.bias, bias_fill)


def init_linear(module: nn.Module) -> None:
    """Give a linear layer truncated-normal weights of σ 0.02 and zero biases; for ``network.apply(init_linear)``."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def make_layer(basic_block: Callable[..., nn.Module], num_basic_block: int, **kwarg: Any) -> nn.Sequential:
    """``num_basic_block`` blocks in a row, each built as ``basic_block(**kwarg)``."""
    return nn.Sequential(*(basic_block(**kwarg) for _ in range(num_basic_block)))


class ResidualBlockNoBN(nn.Module):
    """``x + res_scale · conv(relu(conv(x)))``, without batch norm (EDSR, Lim et al., CVPRW 2017, figure 2c).

    Args:
        num_feat: Channels.
        res_scale: Factor on the residual branch.
        pytorch_init: Keep PyTorch's initialisation instead of Kaiming's multiplied by 0.1.
    """

    def __init__(self, num_feat: int = 64, res_scale: float = 1, pytorch_init: bool = False) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        if not pytorch_init:
            default_init_weights([self.conv1, self.conv2], 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.conv2(self.relu(self.conv1(x))), alpha=self.res_scale)


class Upsample(nn.Sequential):
    """Sub-pixel upsampling (Shi et al., CVPR 2016): (B, C, H, W) to (B, C, scale·H, scale·W).

    Args:
        scale: 3, or a power of two, which is reached by steps of two.
        num_feat: Channels.

    Raises:
        ValueError: If the scale is neither.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        if scale == 3:
            steps = [3]
        elif scale >= 1 and scale & (scale - 1) == 0:
            steps = [2] * int(math.log2(scale))
        else:
            raise ValueError(f"Upsampling by {scale} is not supported: the scale must be 3 or a power of two.")
        layers: list[nn.Module] = []
        for step in steps:
            layers += [nn.Conv2d(num_feat, step * step * num_feat, 3, 1, 1), nn.PixelShuffle(step)]
        super().__init__(*layers)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training, drops a residual branch for some samples.

    Args:
        drop_prob: Probability that a sample's branch is dropped; the others are divided by ``1 − drop_prob``. None is
            the same as 0.
    """

    def __init__(self, drop_prob: float | None = None) -> None:
        super().__init__()
        self.drop_prob = drop_prob or 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        factor = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * factor.div_(keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:.3f}"


def flow_warp(
    x: Tensor,
    flow: Tensor,
    interp_mode: Literal["bilinear", "nearest"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """Sample ``x`` at positions displaced by ``flow``.

    Args:
        x: (B, C, H, W).
        flow: (B, H, W, 2), displacement in pixels, horizontal then vertical.
        interp_mode: Interpolation between pixels.
        padding_mode: What lies outside the image.
        align_corners: As in ``grid_sample``. The flow is in pixels only if True.

    Returns:
        (B, C, H, W) with ``output[y, x] = input[y + flow_y, x + flow_x]``.

    Raises:
        ValueError: If the two sizes differ.
    """
    height, width = x.shape[-2:]
    if flow.shape[1:3] != (height, width):
        raise ValueError(f"The flow's size {tuple(flow.shape[1:3])} is not the image's, {(height, width)}.")
    rows = torch.arange(height, device=x.device, dtype=flow.dtype)
    columns = torch.arange(width, device=x.device, dtype=flow.dtype)
    position = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1) + flow
    extent = position.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = position * (2 / extent) - 1
    return F.grid_sample(x, grid.to(x.dtype), mode=interp_mode, padding_mode=padding_mode, align_corners=align_corners)


def pixel_unshuffle(x: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) to (B, C·scale², H/scale, W/scale), the inverse of a pixel shuffle.

    Raises:
        ValueError: If the height or the width is not a multiple of the scale.
    """
    height, width = x.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"An image of {height}×{width} pixels cannot be unshuffled: the sides must divide by {scale}.")
    return F.pixel_unshuffle(x, scale)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Reflect-pad (B, C, H, W) at the bottom and right until both sides are multiples of ``multiple``.

    For sides too short for one reflection see :func:`pad_to_size`.
    """
    height, width = x.shape[-2:]
    return pad_to_size(x, math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple)


def pad_to_size(x: Tensor, height: int, width: int) -> Tensor:
    """Reflect-pad (B, C, H, W) at the bottom and right to ``height × width``, which must be at least as large.

    A side too short for one reflection is reflected repeatedly, as by ``numpy.pad``. A side of one pixel is repeated.
    """
    while x.shape[-2] < height or x.shape[-1] < width:
        own_height, own_width = x.shape[-2:]
        mode = "reflect" if min(own_height, own_width) > 1 else "replicate"
        step_down = min(height - own_height, max(own_height - 1, 1))
        step_right = min(width - own_width, max(own_width - 1, 1))
        if mode == "replicate":  # only the one-pixel side, so that the other is still reflected
            step_down, step_right = (step_down, 0) if own_height == 1 else (0, step_right)
        x = F.pad(x, (0, step_right, 0, step_down), mode=mode)
    return x


def rgb_mean_buffer(rgb_mean: Sequence[float], num_in_ch: int, num_out_ch: int) -> Tensor:
    """The mean colour as a tensor (1, C, 1, 1), for networks that subtract it first and add it back last.

    Raises:
        ValueError: If the numbers of channels do not match.
    """
    if not len(rgb_mean) == num_in_ch == num_out_ch:
        raise ValueError(
            f"`rgb_mean` has {len(rgb_mean)} values, but it is subtracted from {num_in_ch} input channels and added "
            f"to {num_out_ch} output channels: the three numbers must be equal."
        )
    return torch.tensor(list(rgb_mean)).view(1, -1, 1, 1)


def to_ntuple(n: int) -> Callable[[Any], tuple]:
    """A function that repeats a single value ``n`` times, and leaves an iterable's values as they are."""

    def parse(x: Any) -> tuple:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))

    return parse


to_1tuple = to_ntuple(1)
to_2tuple = to_ntuple(2)
to_3tuple = to_ntuple(3)
to_4tuple = to_ntuple(4)
