"""Validation, as a mixin for recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader

from basicsr.engine.evaluate.evaluator import DatasetResult, evaluate
from basicsr.engine.evaluate.report import run_facts, write_report
from basicsr.utils.dist_util import get_dist_info, master_only
from basicsr.utils.full_disk import tolerate_full_disk
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options.sections import MetricOptions, ValOptions
from basicsr.utils.paths import path_inside


class ValidationMixin:
    """Adds validation with its log lines, best values and report to a recipe.

    Attributes:
        opt: The resolved options.
        results: The last result of each data set by name.
        metric_results: The last data set's means by metric; absent before the first, which BasicSR's recipes ask for.
        best_metric_results: Data set → metric → ``better``, ``val`` and ``iter``, as in BasicSR.
    """

    opt: dict

    def __init__(self) -> None:
        self.results: dict[str, DatasetResult] = {}
        self.best_metric_results: dict[str, dict[str, dict[str, Any]]] = {}
        self._picture_owners: dict[str, str] = {}  # an image's name, without case → the first data set that has it

    def validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        """Measure a data set. On several ranks its images are spread over them.

        Args:
            dataloader: The data set's loader.
            current_iter: The iteration; or, when testing, the run's name.
            tb_logger: A TensorBoard writer, or None.
            save_img: Whether to save the restored images.
        """
        if self.opt["dist"]:
            self.dist_validation(dataloader, current_iter, tb_logger, save_img)
        else:
            self.nondist_validation(dataloader, current_iter, tb_logger, save_img)
        if hasattr(self, "timer"):
            self.timer.interrupted()

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """Validation in a process group. A subclass's own ``nondist_validation`` runs on rank 0, as it expects."""
        if type(self).nondist_validation is ValidationMixin.nondist_validation:
            self._evaluate(dataloader, current_iter, tb_logger, save_img, spread=True)
        else:
            if get_dist_info()[0] == 0:
                what = f"what the validation of {dataloader.dataset.opt['name']} gave"
                with tolerate_full_disk(what, when=self.opt["is_train"]):  # the others wait at the barrier
                    self.nondist_validation(dataloader, current_iter, tb_logger, save_img)
            dist.barrier()

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """Validation of the whole data set in this process alone."""
        self._evaluate(dataloader, current_iter, tb_logger, save_img, spread=False)

    def _evaluate(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool, spread: bool
    ) -> None:
        options = ValOptions.of(self.opt.get("val"))
        dataset_name = dataloader.dataset.opt["name"]
        save_path = None
        if save_img:

            def save_path(name: str) -> Path:
                return self._visual_path(dataset_name, name, current_iter)

        metrics = options.metrics or {}
        result = evaluate(
            self,
            dataloader,
            metrics,
            save_path=save_path,
            progress=options.pbar,
            spread=spread,
            survive_full_disk=self.opt["is_train"],
        )
        self.results[dataset_name] = result
        for name in result.images:
            self._picture_owners.setdefault(name.casefold(), dataset_name)
        if result.values:
            self.metric_results = result.means()
            self._initialize_best_metric_results(dataset_name)
            for metric, value in self.metric_results.items():
                self._update_best_metric_result(dataset_name, metric, value, current_iter)
            self._log_validation_metric_values(current_iter, dataset_name, tb_logger)
            self._write_results(current_iter)

    def _visual_path(self, dataset_name: str, name: str, current_iter: int | str) -> Path:
        """Where a picture is saved.

        In training that is BasicSR's ``<image>/<image>_<iteration>.png``; below a folder named after the data set where
        one that was validated before has an image of that name. The sets have the same order every time, and every rank
        knows all names of the sets before, so that all ranks, and a resumed run, choose the same.
        """
        folder = self.opt["path"]["visualization"]
        if self.opt["is_train"]:
            file = f"{Path(name).name}_{current_iter}.png"
            if self._picture_owners.get(name.casefold(), dataset_name) != dataset_name:
                return path_inside(folder, dataset_name, name, file)
            return path_inside(folder, name, file)
        suffix = ValOptions.of(self.opt.get("val")).suffix or self.opt["name"]
        return path_inside(folder, dataset_name, f"{name}_{suffix}.png")

    @master_only
    def _write_results(self, current_iter: int | str) -> None:
        root = self.opt["path"].get("experiments_root" if self.opt["is_train"] else "results_root")
        if root is None:  # options that were made by hand
            return
        facts = run_facts(self.opt, current_iter if self.opt["is_train"] else None)
        stem = "validation" if self.opt["is_train"] else "results"
        with tolerate_full_disk(f"the report {stem}.*", when=self.opt["is_train"]):
            write_report(root, stem, self.results.values(), facts)

    def _initialize_best_metric_results(self, dataset_name: str) -> None:
        best = self.best_metric_results.setdefault(dataset_name, {})
        for metric, options in self.opt["val"]["metrics"].items():
            better = MetricOptions.of(options).better
            worst = float("-inf") if better == "higher" else float("inf")
            best.setdefault(metric, {"better": better, "val": worst, "iter": -1})

    def _update_best_metric_result(self, dataset_name: str, metric: str, value: float, current_iter: int | str) -> None:
        best = self.best_metric_results[dataset_name][metric]
        if value >= best["val"] if best["better"] == "higher" else value <= best["val"]:
            best["val"], best["iter"] = value, current_iter

    @master_only
    def _log_validation_metric_values(self, current_iter: int | str, dataset_name: str, tb_logger: Any) -> None:
        lines = [f"Validation {dataset_name}"]
        for metric, value in self.metric_results.items():
            line = f"\t # {metric}: {value:.4f}"
            if self.opt["is_train"]:
                best = self.best_metric_results[dataset_name][metric]
                line += f"\tBest: {best['val']:.4f} @ {best['iter']} iter"
            lines.append(line)
            if tb_logger:
                tb_logger.add_scalar(f"metrics/{dataset_name}/{metric}", value, current_iter)
        get_root_logger().info("\n".join(lines) + "\n")
