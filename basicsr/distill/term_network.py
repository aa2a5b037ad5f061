"""A term that is a network for the other terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .passes import Pass, PassContext, PassNetwork, require_image
from .taps import FeatureTaps
from .term import KDTerm


def is_network(term: KDTerm) -> bool:
    """Whether a term overrides :meth:`~basicsr.distill.term.KDTerm.as_network`."""
    return type(term).as_network is not KDTerm.as_network


class TermNetwork(PassNetwork):
    """A term that offers :meth:`~basicsr.distill.term.KDTerm.as_network`. Each of its passes is run by itself.

    Args:
        term: The term; it need not be set up yet.
    """

    part = None  # the passes that it requests are timed under their own names
    asks_for_passes = True

    def __init__(self, term: KDTerm) -> None:
        self.term = term
        self.label = f"the network of train.kd_opt.{term.name}"
        self.taps = FeatureTaps(nn.Module(), self.label)

    def wants_gradient(self, tensors: list[Tensor], student_is_constant: bool = False) -> bool:
        return True  # it depends on what the term does

    def run(self, image: Tensor, **inputs: Any) -> Tensor:
        raise NotImplementedError("a term needs the context; see record")

    def record(self, ctx: PassContext, key: str, image: Tensor, replace: Mapping[str, Tensor], **inputs: Any) -> Pass:
        if replace:
            raise ValueError(f"{self.label} has no taps, so nothing in it can be replaced")
        with ctx.logging_as(self.term.name):
            output = self.term.as_network(ctx, key, image, **inputs)
        require_image(output, self.label)
        return Pass(output)
