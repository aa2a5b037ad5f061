"""How a network computes: precision, memory format, compilation."""

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
ENCODER_METHODS = ("features", "latent_from_features")  # called instead of forward


@dataclass(frozen=True)
class NetworkRuntime:
    """The ``runtime`` section of one network.

    Attributes:
        precision: ``bf16`` and ``fp16`` use autocast; results, and the weights of a trained network, stay float32.
            ``tf32`` lets CUDA's matrix products round their inputs to 10 bits; elsewhere it is ``fp32``. ``fp32``
            keeps PyTorch's defaults, with which cuDNN's convolutions may use TF32. The option ``auto`` becomes one of
            these in :func:`~basicsr.engine.compute.precision.resolve_precision`.
        channels_last: Whether weights and inputs have the channels-last memory format.
        compile: Whether to compile the network with ``torch.compile``, at its first use.
    """

    precision: PrecisionName = "fp32"
    channels_last: bool = False
    compile: bool = False

    def to_memory_format(self, net: nn.Module) -> nn.Module:
        """Convert a network's weights to the memory format."""
        return net.to(memory_format=torch.channels_last) if self.channels_last else net

    def cast_weights(self, net: nn.Module) -> nn.Module:
        """Cast the weights of a frozen network once, as autocast would in every pass."""
        if self.precision in AUTOCAST:
            for module in net.modules():
                if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
                    module.to(AUTOCAST[self.precision])
        return net

    def compile_in_place(self, net: nn.Module) -> None:
        """Compile a network in place, at its next use. Its state-dict keys do not change.

        Register forward hooks before: compiled code does not run later ones.
        """
        if self.compile:
            net.compile()
            for name in ENCODER_METHODS:
                if inspect.ismethod(getattr(net, name, None)):  # VGG has a module of that name
                    setattr(net, name, torch.compile(getattr(net, name)))

    @staticmethod
    def chunks(images: Tensor) -> tuple[Tensor, ...]:
        """Split images for a pass without gradients: one chunk on a GPU, chunks of 16 on a CPU.

        A CPU gains nothing from larger batches, and their activations take most of the memory of such a pass.
        """
        return (images,) if images.is_cuda else images.split(CPU_CHUNK)

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Context manager that sets the precision."""
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
        """``net(x, **inputs)`` in this precision and memory format; the tensors returned have the dtype of ``x``."""
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.autocast(x.device):
            y = net(x, **inputs)
        return tree_map(lambda part: part.to(x.dtype) if isinstance(part, Tensor) else part, y)
