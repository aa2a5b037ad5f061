"""Compares a term's gradient with that of the supervised losses, for the log."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config


def disable_donated_buffers() -> None:
    """Allow several backward passes through networks that are compiled from now on.

    By default PyTorch reuses the buffers that compiled code has saved for its backward pass.
    """
    if hasattr(functorch_config, "donated_buffer"):
        functorch_config.donated_buffer = False


class GradientComparison:
    """The gradient of each term in the student beside the supervised losses' gradient, which is computed once.

    Args:
        parameters: The student's.
        supervised: The sum of the supervised losses; None where there are none.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], supervised: Tensor | None) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._supervised = supervised
        self._supervised_gradient: Tensor | None = None

    def __call__(self, name: str, term: Tensor) -> dict[str, Tensor]:
        """``grad_<name>``, the norm of a term's gradient, and ``cos_<name>``, its cosine with the supervised one.

        Both are 0 where the term does not depend on the student.
        """
        own = self._gradient(term)
        log = {f"grad_{name}": own.norm()}
        if self._supervised is not None:
            if self._supervised_gradient is None:
                self._supervised_gradient = self._gradient(self._supervised)
            log[f"cos_{name}"] = torch.cosine_similarity(own, self._supervised_gradient, dim=0)
        return log

    def _gradient(self, loss: Tensor) -> Tensor:
        grads: Iterable[Tensor | None] = [None] * len(self._parameters)
        if loss.requires_grad:
            grads = torch.autograd.grad(loss, self._parameters, retain_graph=True, allow_unused=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(self._parameters, grads)])
