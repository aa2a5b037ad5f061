"""A network that is not trained: a teacher or an encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from basicsr.engine.compute.precision import PrecisionOption, resolve_precision
from basicsr.engine.compute.runtime import NetworkRuntime

from .passes import PassNetwork
from .taps import FeatureTaps


class FrozenNetwork(nn.Module, PassNetwork):
    """Keeps a network in eval mode, with parameters that require no gradients.

    Args:
        net: The network, on its device.
        name: Its suffix in the options: ``t`` for ``network_t``.
        precision: The precision it computes in, ``auto`` being made concrete; the results are always float32.
        channels_last: Whether it computes in that memory layout.
        compile: Whether it is compiled.
        mean: Per channel; the network is given ``(x − mean) / std``. None for 0.
        std: Per channel. None for 1. An output image is brought back by ``y · std + mean``.
        weights: Where its weights come from, for the log.
    """

    part = "teacher"

    def __init__(
        self,
        net: nn.Module,
        name: str,
        *,
        precision: PrecisionOption = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        weights: str = "its own",
    ) -> None:
        super().__init__()
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        precision = resolve_precision(precision, device, f"runtime.{name}.precision")
        self.runtime = NetworkRuntime(precision, channels_last, compile)
        self.net = self.runtime.to_memory_format(self.runtime.cast_weights(net.requires_grad_(False).eval()))
        self.name = name
        self.weights = weights
        self.label = f"network_{name}"
        self.taps = FeatureTaps(net, self.label)
        self.normalised = mean is not None or std is not None
        width = len(mean if mean is not None else std) if self.normalised else 1
        self.register_buffer("mean", _per_channel(mean or [0.0] * width, device), persistent=False)
        self.register_buffer("std", _per_channel(std or [1.0] * width, device), persistent=False)
        self.training = False

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Does nothing: a frozen network stays in eval mode."""
        return self

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        """Run the network on images in the student's range. Gradients flow to ``x`` unless the caller disables them.

        Args:
            x: ``(B, C, h, w)``.
            **inputs: Further arguments of the network's own ``forward``, such as a prompt.

        Returns:
            The output in the student's range, in the precision of ``x``.
        """
        if self.normalised:
            x = (x - self.mean) / self.std
        y = self.runtime.run(self.net, x, **inputs)
        return y * self.std + self.mean if self.normalised else y

    run = forward


def _per_channel(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
