"""Learning-rate schedules in closed form: the rate at an iteration depends on the iteration alone.

So warm-up and resuming do not affect later rates, as they do if each rate is computed from the last.
"""

from __future__ import annotations

import inspect
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class ClosedFormLR(LRScheduler):
    """A schedule whose rate depends on the iteration and the options alone."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the position. Milestones, periods and rates are those of the options, also when they have changed
        since, or when the state was saved by BasicSR."""
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict.get("_step_count", self.last_epoch + 1)
        rates = self.get_lr()
        for group, base, rate in zip(self.optimizer.param_groups, self.base_lrs, rates):
            group["initial_lr"], group["lr"] = base, rate
        self._last_lr = rates


class MultiStepRestartLR(ClosedFormLR):
    """Multiply the rate by ``gamma`` at each milestone; start again at each restart.

    Args:
        optimizer: The optimiser.
        milestones: Iterations at which the rate is multiplied; one given twice multiplies it twice.
        gamma: The factor.
        restarts: Iterations at which the rate returns to the initial rate times a weight; earlier milestones
            no longer apply.
        restart_weights: The weight of each restart.
        last_epoch: As in PyTorch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        restarts: Sequence[int] = (0,),
        restart_weights: Sequence[float] = (1,),
        last_epoch: int = -1,
    ) -> None:
        if len(restarts) != len(restart_weights):
            raise ValueError(f"scheduler: {len(restarts)} restarts but {len(restart_weights)} restart_weights")
        self.milestones = sorted(milestones)
        self.gamma = gamma
        self.restarts = sorted(restarts)
        self.restart_weights = list(restart_weights)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        index = bisect_right(self.restarts, self.last_epoch) - 1
        since, weight = (self.restarts[index], self.restart_weights[index]) if index >= 0 else (-1, 1.0)
        passed = bisect_right(self.milestones, self.last_epoch) - bisect_right(self.milestones, since)
        return [lr * weight * self.gamma**passed for lr in self.base_lrs]


class MultiStepLR(MultiStepRestartLR):
    """:class:`MultiStepRestartLR` without restarts."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        super().__init__(optimizer, milestones, gamma, last_epoch=last_epoch)


class CosineAnnealingRestartCyclicLR(ClosedFormLR):
    """Cosine annealing over each period in turn, each with a lowest rate of its own (SGDR, Loshchilov and Hutter 2017;
    with several lowest rates in Restormer's option files).

    Where a period's ``eta_mins`` is the initial rate, the rate is constant.

    Args:
        optimizer: The optimiser.
        periods: Iterations of each period. After the last one the rate stays at its lowest.
        restart_weights: Weight of the rate in each period.
        eta_mins: The lowest rate of each period.
        last_epoch: As in PyTorch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        periods: Sequence[int],
        restart_weights: Sequence[float] = (1,),
        eta_mins: Sequence[float] = (0.0,),
        last_epoch: int = -1,
    ) -> None:
        for name, values in (("restart_weights", restart_weights), ("eta_mins", eta_mins)):
            if len(periods) != len(values):
                raise ValueError(f"scheduler: {len(periods)} periods but {len(values)} {name}")
        if min(periods, default=0) <= 0:
            raise ValueError(f"scheduler: periods must be positive, not {list(periods)}")
        self.periods = list(periods)
        self.restart_weights = list(restart_weights)
        self.eta_mins = list(eta_mins)
        self.ends = list(accumulate(periods))
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        # The last iteration of a period, at its lowest rate, still belongs to it, as in BasicSR.
        index = min(bisect_left(self.ends, self.last_epoch), len(self.periods) - 1)
        start = self.ends[index] - self.periods[index]
        progress = min((self.last_epoch - start) / self.periods[index], 1.0)
        weight, eta_min = self.restart_weights[index], self.eta_mins[index]
        return [eta_min + weight * 0.5 * (lr - eta_min) * (1 + math.cos(math.pi * progress)) for lr in self.base_lrs]


class CosineAnnealingRestartLR(CosineAnnealingRestartCyclicLR):
    """:class:`CosineAnnealingRestartCyclicLR` with one lowest rate, ``eta_min``, for all periods."""

    def __init__(
        self,
        optimizer: Optimizer,
        periods: Sequence[int],
        restart_weights: Sequence[float] = (1,),
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(optimizer, periods, restart_weights, [eta_min] * len(periods), last_epoch)


class CosineAnnealingLR(CosineAnnealingRestartLR):
    """One cosine from the initial rate to ``eta_min`` over ``T_max`` iterations."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        super().__init__(optimizer, [T_max], [1.0], eta_min, last_epoch)


class TrueCosineAnnealingLR(CosineAnnealingLR):
    """The name that NAFNet's option files use for :class:`CosineAnnealingLR`."""


def get_position_from_periods(iteration: int, cumulative_period: Sequence[int]) -> int | None:
    """The index of the period that an iteration belongs to; the last iteration of a period still does.

    Args:
        iteration: The iteration.
        cumulative_period: The last iteration of each period.

    Returns:
        The index, or None after the last period.
    """
    position = bisect_left(cumulative_period, iteration)
    return position if position < len(cumulative_period) else None


def find_scheduler(name: str) -> type[LRScheduler]:
    """The schedule that ``type: name`` means: one of this module, or of torch.optim.lr_scheduler.

    Raises:
        ValueError: If there is none.
    """
    found = globals().get(name) or getattr(torch.optim.lr_scheduler, name, None)
    if not (inspect.isclass(found) and issubclass(found, LRScheduler)):
        raise ValueError(f"train.scheduler.type: there is no scheduler '{name}' here or in torch.optim.lr_scheduler")
    return found
