"""The interface of a distillation term."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.utils.options.sections import Schedule

from .context import KDContext
from .networks import Networks


class KDTerm(nn.Module):
    """One term of the distillation loss: a subclass in a file of its own, decorated ``@KD_REGISTRY.register()``.

    The constructor's signature is the schema of its options. Its parameters, such as adapters, train with the student,
    except those in its own :meth:`optimizers`. Its state dict is saved in the training state. Neither is part of the
    exported student.

    A term that overrides :meth:`as_network` is a network for other terms, under its name: an average of several
    teachers, a wide student.

    Attributes:
        name: The section of ``train.kd_opt`` it was built from.
        schedule: When it is active, and how much it weighs.
        needs_whole_batch: Whether it compares the samples of a batch with each other, so that the batch must not be
            divided (``train.accumulate``).
    """

    name: str = ""
    schedule: Schedule = Schedule.of(None)
    needs_whole_batch: bool = False

    def taps(self) -> Iterable[tuple[str, str]]:
        """The modules that the term reads, as (network, path or glob). Called first: one pass gives all shapes."""
        return ()

    def setup(self, networks: Networks) -> None:
        """Called once, before the optimiser is built: look up teachers and encoders, build adapters."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameter groups that the student's optimiser trains besides the student, as ``torch.optim`` takes them.

        A group with options of its own, such as ``lr``, stays a group; one without joins the student's.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def optimizers(self, networks: Networks) -> list[torch.optim.Optimizer]:
        """Optimisers of the term's own, such as a discriminator's; saved, and scheduled by ``train.scheduler``.

        Called once, after :meth:`setup`. Their parameters are constant in :meth:`forward`, are not trained with the
        student, and are trained by :meth:`own_loss` only.
        """
        return []

    def prepare(self, ctx: KDContext) -> None:
        """Called before any term of the batch is computed: request passes and encodings."""

    def forward(self, ctx: KDContext) -> Tensor | dict[str, Tensor]:
        """The term's value on one batch, a scalar before weighting, or several by name (logged ``l_<term>_<name>``)."""
        raise NotImplementedError

    def as_network(self, ctx: KDContext, key: str, image: Tensor, **inputs: Any) -> Tensor:
        """The term's output for an image, as a network of its name.

        Args:
            ctx: The iteration; passes of other networks may be requested.
            key: The key of the requested pass. Passes over the same image have this key, too.
            image: ``(N, C, h, w)``.
            **inputs: The further arguments that the pass was requested with.
        """
        raise NotImplementedError

    def own_loss(self, ctx: KDContext) -> Tensor | dict[str, Tensor]:
        """The loss of :meth:`optimizers`, computed after the student's step on a context without gradients."""
        raise NotImplementedError

    def after_step(self, networks: Networks, iteration: int) -> None:
        """Called after the optimiser and the average have been updated, also when the term is not active."""

    def wiring(self) -> list[dict[str, Any]]:
        """Rows of the table in the start-up log: which part of the student meets which part of which network.

        Each row has ``student``, ``student_shape``, ``network``, ``module``, ``module_shape`` and ``adapter``.
        """
        return []
