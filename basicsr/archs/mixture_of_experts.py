"""The mixture of experts of DRSformer: convolutions and a pooling that a gate weights for each image.

MEFC of Chen et al., CVPR 2023 (arXiv 2303.11950), section 3.4, after the operation-wise attention of Suganuma et al.,
CVPR 2019 (arXiv 1812.00733). Numbers of experts and steps are those of the release (github.com/cschenxiang/DRSformer).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 4
NUM_EXPERTS = 8


class Expert(nn.Module):
    """Convolutions without bias, each depthwise one followed by a 1×1."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


def _depthwise(channels: int, side: int, dilation: int = 1) -> list[nn.Module]:
    """A depthwise convolution that keeps the size, and a 1×1 convolution."""
    padding = dilation * (side - 1) // 2
    depthwise = nn.Conv2d(channels, channels, side, padding=padding, dilation=dilation, groups=channels, bias=False)
    return [depthwise, nn.Conv2d(channels, channels, 1, bias=False)]


def _experts(channels: int) -> nn.ModuleList:
    """Separable convolutions of side 1, 3, 5 and 7 applied twice, dilated ones of side 3, 5 and 7, and a mean."""
    separable = [Expert(*_depthwise(channels, side), nn.ReLU(), *_depthwise(channels, side)) for side in (1, 3, 5, 7)]
    dilated = [Expert(*_depthwise(channels, side, dilation=2)) for side in (3, 5, 7)]
    return nn.ModuleList([*separable, *dilated, nn.AvgPool2d(3, 1, 1, count_include_pad=False)])


class ExpertLayer(nn.Module):
    """All experts on the same features, weighted and merged by a 1×1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._ops = _experts(channels)
        self._out = nn.Sequential(nn.Conv2d(channels * NUM_EXPERTS, channels, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(B, C, H, W) and weights (B, experts) to (B, C, H, W)."""
        weights = weights[..., None, None, None]
        return self._out(torch.cat([expert(x) * weights[:, i] for i, expert in enumerate(self._ops)], dim=1))


class ExpertSteps(nn.Module):
    """A 1×1 convolution, then layers of experts with a residual connection around each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preprocess = Expert(nn.Conv2d(channels, channels, 1, bias=False), nn.ReLU())
        self._ops = nn.ModuleList(ExpertLayer(channels) for _ in range(STEPS))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(B, C, H, W) and weights (B, steps, experts) to (B, C, H, W)."""
        x = self.preprocess(x)
        for step, layer in enumerate(self._ops):
            x = torch.relu(layer(x, weights[:, step]) + x)
        return x


class Gate(nn.Module):
    """The weights of the experts, from the mean of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        outputs = STEPS * NUM_EXPERTS
        self.ca_fc = nn.Sequential(nn.Linear(channels, outputs * 2), nn.ReLU(), nn.Linear(outputs * 2, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, steps, experts); the weights of a step sum to 1."""
        return self.ca_fc(x.mean(dim=(2, 3))).unflatten(1, (STEPS, NUM_EXPERTS)).softmax(dim=-1)


class FeatureCompensator(nn.Module):
    """Mixture of experts feature compensator (MEFC)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Gate(channels), ExpertSteps(channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        gate, steps = self.layers
        return steps(x, gate(x))
