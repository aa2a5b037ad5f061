"""How a network computes: in which precision, in which memory layout, compiled or not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from basicsr.engine.compute.precision import AUTOCAST, PrecisionName

CPU_CHUNK = 16
ENCODER_METHODS = ("features", "latent_from_features")  # where encoders are entered otherwise than by forward


@dataclass(frozen=True)
class NetworkRuntime:
    """The ``runtime`` section of one network.

    Attributes:
        precision: ``bf16`` and ``fp16`` compute by autocast, results and a trained network's weights staying float32.
            ``tf32`` lets CUDA's matrix products round their inputs to 10 bits; elsewhere it is ``fp32``. With ``fp32``
            PyTorch's defaults hold, by which cuDNN's convolutions may use TF32. The options' ``auto`` is made one of
            these by :func:`~basicsr.engine.compute.precision.resolve_precision`.
        channels_last: Whether weights and inputs are laid out channels-last.
        compile: Whether ``torch.compile`` compiles the network, at its first use.
    """

    precision: PrecisionName = "fp32"
    channels_last: bool = False
    compile: bool = False

    def to_memory_format(self, net: nn.Module) -> nn.Module:
        """Lay out a network's weights."""
        return net.to(memory_format=torch.channels_last) if self.channels_last else net

    def cast_weights(self, net: nn.Module) -> nn.Module:
        """Keep the weights of a network that is not trained in what autocast would make of them at every pass."""
        if self.precision in AUTOCAST:
            for module in net.modules():
                if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
                    module.to(AUTOCAST[self.precision])
        return net

    def compile_in_place(self, net: nn.Module) -> None:
        """Have a network compiled at its next use, in place, so that its state-dict keys stay as they are.

        Forward hooks must be there already: the compiled code knows no later ones.
        """
        if self.compile:
            net.compile()
            for name in ENCODER_METHODS:
                if inspect.ismethod(getattr(net, name, None)):  # VGG has a module of that name
                    setattr(net, name, torch.compile(getattr(net, name)))

    @staticmethod
    def chunks(images: Tensor) -> tuple[Tensor, ...]:
        """The images as they are to be passed without gradients: on a GPU together, on a CPU 16 at a time.

        A CPU gains nothing from larger batches, and their activations are what such a pass needs memory for.
        """
        return (images,) if images.is_cuda else images.split(CPU_CHUNK)

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """The precision of what runs inside."""
        if self.precision in AUTOCAST:
            with torch.autocast(device.type, AUTOCAST[self.precision]):
                yield
        elif self.precision == "tf32" and device.type == "cuda":
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("high")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)
        else:
            yield

    def run(self, net: Callable[..., Any], x: Tensor, **inputs: Any) -> Any:
        """``net(x, **inputs)`` in this precision and layout; each tensor of the result is as precise as ``x``."""
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.autocast(x.device):
            y = net(x, **inputs)
        return tree_map(lambda part: part.to(x.dtype) if isinstance(part, Tensor) else part, y)
