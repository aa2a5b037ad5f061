"""The student, its average, and terms that are networks, as passes see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basicsr.engine.runtime import NetworkRuntime

from .context import KDContext
from .passes import Pass, PassNetwork, require_image
from .taps import FeatureTaps
from .term import KDTerm


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

    def wants_gradient(self, tensors: list[Tensor]) -> bool:
        return True

    def run(self, image: Tensor, **inputs: Any) -> Tensor:
        return self.runtime.run(self.wrapped, image, **inputs)


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


class TermNetwork(PassNetwork):
    """A term that offers :meth:`~basicsr.distill.term.KDTerm.as_network`. Each of its passes is run by itself.

    Args:
        term: The term, built and maybe not set up yet.
    """

    part = None  # the passes that it asks for are counted as theirs
    batches = False

    def __init__(self, term: KDTerm) -> None:
        self.term = term
        self.label = f"the network of train.kd_opt.{term.name}"
        self.taps = FeatureTaps(nn.Module(), self.label)

    def wants_gradient(self, tensors: list[Tensor]) -> bool:
        return True  # it depends on what the term does

    def run(self, image: Tensor, **inputs: Any) -> Tensor:
        raise NotImplementedError("a term needs the context; see record")

    def record(self, ctx: KDContext, key: str, image: Tensor, replace: Mapping[str, Tensor], **inputs: Any) -> Pass:
        if replace:
            raise ValueError(f"{self.label} has no taps, so nothing in it can be replaced")
        output = self.term.as_network(ctx, key, image, **inputs)
        require_image(output, self.label)
        return Pass(output)
