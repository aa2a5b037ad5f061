"""Trains the terms' own networks, such as discriminators, after the student's step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from basicsr.engine.compute.step import GradientStep
from basicsr.engine.compute.timing import StepTimer

from .context import KDContext
from .term import KDTerm

LossOf = Callable[[KDContext], Mapping[str, Tensor]]


class OwnTraining:
    """The gradient steps of the terms' own optimisers.

    Args:
        device: Where the terms are.
        max_bad_steps: See :class:`~basicsr.engine.compute.finite.FiniteGuard`.
        timer: Measures the steps.

    Attributes:
        parameters: The parameters of the optimisers.
    """

    def __init__(self, device: torch.device, max_bad_steps: int, timer: StepTimer | None) -> None:
        self._device = device
        self._max_bad_steps = max_bad_steps
        self._timer = timer
        self._steps: dict[str, GradientStep] = {}
        self._contexts: list[KDContext] = []
        self.parameters: list[nn.Parameter] = []

    def add(self, term: KDTerm, optimizers: list[torch.optim.Optimizer]) -> None:
        """Let a term's optimisers minimise its own loss.

        Raises:
            ValueError: If it has none.
        """
        if type(term).own_loss is KDTerm.own_loss:
            raise ValueError(
                f"{type(term).__name__} has optimizers() and so needs own_loss(ctx), the loss that they minimise"
            )
        own = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        self._steps[term.name] = GradientStep(
            optimizers, self._device, outside=own, max_bad_steps=self._max_bad_steps, timer=self._timer
        )
        self.parameters += own

    @property
    def steps(self) -> list[GradientStep]:
        return list(self._steps.values())

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer for step in self.steps for optimizer in step.optimizers]

    def add_batch(self, ctx: KDContext, active: Collection[str]) -> None:
        """Keep a part of the batch for :meth:`train`, without gradients, if an active term has optimisers."""
        if self._steps.keys() & set(active):
            self._contexts.append(ctx.detached())

    def try_losses(self, loss_of: Mapping[str, LossOf]) -> list[Tensor]:
        """The terms' own losses on the parts of the batch that were kept, without a step."""
        return [
            loss
            for name in self._steps
            if name in loss_of
            for ctx in self._contexts
            for loss in loss_of[name](ctx).values()
        ]

    def train(self, iteration: int, loss_of: Mapping[str, LossOf], others: Collection[str] = ()) -> dict[str, Tensor]:
        """Take the steps of an iteration, on the parts of the batch that were kept, and let these go.

        Args:
            iteration: The iteration.
            loss_of: Name of each active term → its own loss on a part, by the names in the log.
            others: The names of the iteration's other losses.

        Returns:
            The losses.

        Raises:
            ValueError: If one has the name of another loss.
        """
        losses: dict[str, Tensor] = {}
        contexts, self._contexts = self._contexts, []
        for name, step in self._steps.items() if contexts else ():
            if name not in loss_of:
                continue
            own = step(iteration, contexts, loss_of[name])
            clash = own.keys() & {*others, *losses}
            if clash:
                raise ValueError(
                    f"train.kd_opt.{name}: own_loss gives {', '.join(sorted(clash))}, which is the name of another "
                    f"loss; rename it"
                )
            losses |= own
        return losses
