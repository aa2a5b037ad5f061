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
    """Minimises losses over the parameters of some optimisers, such as those of a generator or a discriminator.

    Args:
        optimizers: All of them take the step.
        device: Where the parameters are.
        net: The network whose gradients DDP averages, if there is one.
        outside: Parameters whose gradients DDP does not see; they are averaged over the ranks here.
        idle: From an iteration to the ids of those of ``outside`` that may have no gradient on any rank.
        scaled: Whether to scale the loss, as fp16 needs.
        max_bad_steps: See :class:`~basicsr.engine.compute.finite.FiniteGuard`.
        clip: Clip the gradients of ``net`` to this norm; None for no clipping.
        timer: Measures the backward passes and the update.
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
            parts: The parts of the batch. Their gradients are added.
            losses_of: From a part to its losses by name. If no part has any, no step is taken.
            combine: From the losses to the scalar that is minimised.

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
        """Let DDP average the gradients in the last part's backward pass only."""
        wrapped = isinstance(self.net, DistributedDataParallel)
        return self.net.no_sync() if wrapped and not is_last else nullcontext()

    def _update(self, iteration: int, losses: Losses) -> None:
        """Average, unscale and clip the gradients, and step the optimisers if the gradients are finite."""
        idle = self.idle(iteration)
        shared = [p for p in self.outside if p.grad is not None or id(p) not in idle]
        average_gradients(shared)  # first, so that all ranks check the same gradients
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        self._clip_gradients()
        bad = self.guard.bad_step(iteration, losses, gradients(self.parameters))
        for optimizer in self.optimizers:
            step_unless(optimizer, bad)  # not the scaler's step, which judges each optimiser by its own gradients
        self.scaler.update()

    def _clip_gradients(self) -> None:
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)

    def state(self) -> dict[str, Any]:
        """The scaler's state, for the training state; empty if the loss is not scaled."""
        return self.scaler.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned; after a run without scaling, the scale starts at its initial value."""
        if self.scaler.is_enabled() and state:
            self.scaler.load_state_dict(dict(state))


@contextmanager
def without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Context manager in which parameters need no gradients, as a discriminator's in the generator's step."""
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
