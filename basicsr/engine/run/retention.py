"""Deletes old checkpoints and finds the best one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from basicsr.engine.run.set_aside import iteration_of
from basicsr.utils.options.sections import LoggerOptions


def keep_newest(states: Path, models: Path, networks: Iterable[str], current_iter: int, keep: int) -> None:
    """Delete a run's older checkpoints, after a newer one has been written in full.

    A checkpoint's training state is deleted before its networks, so that every state has its networks. If the run is
    killed in between, the networks are deleted the next time. Files of later iterations, left by a run that was
    continued from an earlier state, are kept.

    Args:
        states: The folder of the training states.
        models: The folder of the networks.
        networks: The files in it that belong to the present checkpoint, ``net_g_4000.pth``: only files that differ
            from these in the iteration are ever deleted.
        current_iter: The present checkpoint's iteration.
        keep: How many to keep, the present one included.
    """
    labels = [re.escape(name.removesuffix(f"_{current_iter}.pth")) for name in networks]
    network = re.compile(rf"({'|'.join(labels)})_(\d+)\.pth")
    old_states = {n: file for file in states.iterdir() if (n := iteration_of(file)) is not None}
    kept = sorted((i for i in old_states if i <= current_iter), reverse=True)[:keep]
    for iteration in sorted(i for i in old_states if i < kept[-1]):
        old_states[iteration].unlink()
    for file in models.iterdir():
        match = network.fullmatch(file.name)
        if match and int(match[2]) < current_iter and int(match[2]) not in kept:
            file.unlink()


class BestKeeper:
    """Decides whether a validation is the best so far, by the metric that ``logger.keep_best`` names.

    Args:
        opt: The options.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.choice = LoggerOptions.of(opt["logger"]).keep_best

    def improved(self, best_metric_results: dict[str, dict[str, dict[str, Any]]], current_iter: int) -> bool:
        """Whether the last validation, of this iteration, is the best so far; of equal ones, the latest is.

        Args:
            best_metric_results: The recipe's: data set → metric → ``val`` and ``iter``.
            current_iter: The iteration.
        """
        if self.choice is None:
            return False
        dataset, metric = self.choice.rsplit("/", 1)
        return best_metric_results.get(dataset, {}).get(metric, {}).get("iter") == current_iter
