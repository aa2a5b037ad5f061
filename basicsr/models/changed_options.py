"""Puts options of optimisers and schedules that have changed, with consent, in force in a run that is resumed.

A training state brings its own rates, betas and milestones along: resuming restores them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .lr_scheduler import ClosedFormLR

_SECTIONS = ("train.optim_", "train.scheduler", "train.kd_opt")


@dataclass(frozen=True)
class FreshSettings:
    """What the options say of a recipe's optimisers and schedules.

    Attributes:
        groups: Of each optimiser, the settings of its parameter groups.
        schedules: The state of each schedule at its beginning.
    """

    groups: list[list[dict[str, Any]]]
    schedules: list[dict[str, Any]]

    @classmethod
    def of(cls, model: Any) -> FreshSettings:
        """Those of a recipe that was just built."""
        groups = [
            [{key: copy.deepcopy(value) for key, value in group.items() if key != "params"} for group in o.param_groups]
            for o in model.optimizers
        ]
        return cls(groups, [copy.deepcopy(schedule.state_dict()) for schedule in model.schedulers])

    def restore(self, model: Any, changed: Collection[str]) -> None:
        """Put them in force again, where options that concern them have changed, as if they had been in force from the
        beginning. Moments and the position in the schedule are those of the training state.

        Args:
            model: The recipe, with a training state restored.
            changed: The dotted names of the options that have changed with consent.
        """
        if not any(name.startswith(_SECTIONS) or name == "train" for name in changed):
            return
        positions = [schedule.last_epoch for schedule in model.schedulers]
        for optimizer, groups in zip(model.optimizers, self.groups):
            for group, settings in zip(optimizer.param_groups, groups):
                group.update(settings)
        for schedule, state, position in zip(model.schedulers, self.schedules, positions):
            if isinstance(schedule, ClosedFormLR):
                schedule.load_state_dict({"last_epoch": position})
            else:
                schedule.load_state_dict(state)
                _advance(schedule, position - schedule.last_epoch)


def _advance(schedule: Any, steps: int) -> None:
    """Step a schedule of PyTorch, most of which compute each rate from the last."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
        for _ in range(steps):
            schedule.step()
