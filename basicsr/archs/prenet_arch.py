"""PReNet: Progressive Image Deraining Networks: A Better and Simpler Baseline (Ren et al., CVPR 2019, arXiv
1901.09221).

State-dict keys are those of the authors' release (github.com/csdwren/PReNet).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

NUM_FEAT = 32
NUM_BLOCK = 5


def _conv_relu(channels: int, number: int) -> nn.Sequential:
    """Convolutions of 3×3, each with a ReLU; the first takes ``channels``."""
    layers: list[nn.Module] = []
    for index in range(number):
        layers += [nn.Conv2d(NUM_FEAT if index else channels, NUM_FEAT, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*layers)


def _gate(activation: nn.Module) -> nn.Sequential:
    """A gate of the LSTM, from the stage's features and the state."""
    return nn.Sequential(nn.Conv2d(2 * NUM_FEAT, NUM_FEAT, 3, 1, 1), activation)


@ARCH_REGISTRY.register()
class PReNet(nn.Module):
    """One small residual network that is applied several times, with a convolutional LSTM from stage to stage.

    Each stage sees the rainy image and the result of the stage before it. The output is the last stage's. Its modules
    run once for each stage, so a tap for distillation names the stage: ``res_conv5@last``, ``res_conv5@0`` or
    ``res_conv5@mean``.

    Args:
        recurrent_iter: Stages; 6 in the release. They share their weights.
    """

    def __init__(self, recurrent_iter: PositiveInt = 6) -> None:
        super().__init__()
        self.iteration = recurrent_iter
        self.conv0 = _conv_relu(6, 1)
        for index in range(1, NUM_BLOCK + 1):  # the release names its blocks res_conv1 … res_conv5, without a container
            self.add_module(f"res_conv{index}", _conv_relu(NUM_FEAT, 2))
        self.conv_i = _gate(nn.Sigmoid())
        self.conv_f = _gate(nn.Sigmoid())
        self.conv_g = _gate(nn.Tanh())
        self.conv_o = _gate(nn.Sigmoid())
        self.conv = nn.Sequential(nn.Conv2d(NUM_FEAT, 3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to the same shape."""
        estimate = x
        state = cell = x.new_zeros(len(x), NUM_FEAT, *x.shape[-2:])
        for _ in range(self.iteration):
            features = torch.cat([self.conv0(torch.cat([x, estimate], dim=1)), state], dim=1)
            cell = self.conv_f(features) * cell + self.conv_i(features) * self.conv_g(features)
            state = features = self.conv_o(features) * torch.tanh(cell)
            for index in range(1, NUM_BLOCK + 1):
                features = F.relu(self.get_submodule(f"res_conv{index}")(features) + features)
            estimate = self.conv(features) + x
        return estimate
