"""The student and its average, as networks for passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr.engine.compute.runtime import NetworkRuntime

from .passes import PassNetwork
from .taps import FeatureTaps


class StudentNetwork(PassNetwork):
    """``network_g`` in training mode.

    Args:
        net: The network, maybe wrapped for several devices.
        runtime: How it computes.
    """

    label = "network_g"
    part = "student"

    def __init__(self, net: nn.Module, runtime: NetworkRuntime) -> None:
        self.wrapped = net
        self.net = net.module if isinstance(net, (DataParallel, DistributedDataParallel)) else net
        self.runtime = runtime
        self.taps = FeatureTaps(self.net, self.label)

    def wants_gradient(self, tensors: list[Tensor], student_is_constant: bool = False) -> bool:
        return not student_is_constant or super().wants_gradient(tensors)

    def run(self, image: Tensor, **inputs: Any) -> Tensor:
        return self.runtime.run(self.wrapped, image, **inputs)

    @contextmanager
    def unwrapped(self) -> Iterator[None]:
        """A block in which passes go past the wrapper: nothing is synchronised with other devices."""
        wrapped, self.wrapped = self.wrapped, self.net
        try:
            yield
        finally:
            self.wrapped = wrapped


class AverageNetwork(PassNetwork):
    """The student's moving average, in evaluation mode. It computes as the student does; its weights stay as they are.

    Args:
        net: The average.
        runtime: How the student computes.
    """

    label = "network_g's average (g_ema)"
    part = "average"

    def __init__(self, net: nn.Module, runtime: NetworkRuntime) -> None:
        self.net = net
        self.runtime = runtime
        self.taps = FeatureTaps(net, self.label)

    def run(self, image: Tensor, **inputs: Any) -> Tensor:
        return self.runtime.run(self.net, image, **inputs)
