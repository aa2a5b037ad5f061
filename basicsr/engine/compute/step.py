"""One gradient step: accumulate, scale, average over ranks, clip, guard, step."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from basicsr.engine.compute.distributed import average_gradients
from basicsr.engine.compute.finite import FiniteGuard, gradients, step_unless
from basicsr.engine.compute.timing import StepTimer

Losses = Mapping[str, Tensor]


def total(losses: Losses) -> Tensor:
    """The sum of losses."""
    return sum(losses.values())


class GradientStep:
    """Minimises losses over the parameters of some optimisers: a generator's step, a discriminator's, a term's.

    Args:
        optimizers: They hold the parameters, and all of them take the step.
        device: Where the parameters are.
        net: The network whose gradients DDP averages, if there is one.
        outside: Parameters whose gradients DDP does not see; they are averaged over the ranks here.
        idle: Gives, for an iteration, the ids of those among them that may have no gradient on any rank.
        scaled: Whether the loss is scaled, as fp16 needs.
        max_bad_steps: See :class:`~basicsr.engine.compute.finite.FiniteGuard`.
        clip: The largest norm of the gradient of ``net``; None for no limit.
        timer: Takes the time of the backward passes and of the update.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        device: torch.device,
        *,
        net: nn.Module | None = None,
        outside: Sequence[nn.Parameter] = (),
        idle: Callable[[int], Container[int]] = lambda iteration: (),
        scaled: bool = False,
        max_bad_steps: int = 100,
        clip: float | None = None,
        timer: StepTimer | None = None,
    ) -> None:
        self.optimizers = list(optimizers)
        self.net = net
        self.outside = list(outside)
        self.idle = idle
        self.clip = clip
        self.timer = timer or StepTimer(device)
        self.guard = FiniteGuard(device, max_bad_steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    def __call__(
        self,
        iteration: int,
        parts: Sequence[Any],
        losses_of: Callable[[Any], Losses],
        combine: Callable[[Losses], Tensor] = total,
    ) -> dict[str, Tensor]:
        """Take a step on the mean of the losses over the parts of a batch.

        Args:
            iteration: The iteration, for reports.
            parts: What ``losses_of`` is called with, one after the other; their gradients are added.
            losses_of: The losses of a part by name. Where it gives none, the parameters stay as they are.
            combine: Makes one scalar of the losses.

        Returns:
            Each loss's mean over the parts, detached.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            with self._gradient_sync(index == len(parts) - 1):
                losses = losses_of(part)
                if losses:
                    with self.timer.part("backward"):
                        self.scaler.scale(combine(losses) / len(parts)).backward()
            for name, loss in losses.items():
                means[name] = means.get(name, 0.0) + loss.detach() / len(parts)
        if means:
            with self.timer.part("optimiser"):
                self._update(iteration, means)
        return means

    def _gradient_sync(self, is_last: bool) -> Any:
        """DDP averages the gradients in the last part's backward pass."""
        wrapped = isinstance(self.net, DistributedDataParallel)
        return self.net.no_sync() if wrapped and not is_last else nullcontext()

    def _update(self, iteration: int, losses: Losses) -> None:
        """One step of the optimisers, unless the gradients are not finite."""
        idle = self.idle(iteration)
        shared = [p for p in self.outside if p.grad is not None or id(p) not in idle]
        average_gradients(shared)  # first of all, so that all ranks judge the same gradients
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        bad = self.guard.bad_step(iteration, losses, gradients(self.parameters))
        for optimizer in self.optimizers:
            step_unless(optimizer, bad)  # not the scaler's step, which judges each optimiser by its own gradients
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        """What the training state keeps beside the optimisers: the scale; empty where the loss is not scaled."""
        return self.scaler.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` gave; a run that was not scaled starts with the initial scale."""
        if self.scaler.is_enabled() and state:
            self.scaler.load_state_dict(dict(state))


@contextmanager
def without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """A block in which some parameters are constants, as a discriminator's are in the generator's step."""
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
