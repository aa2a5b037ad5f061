"""The evaluation that validation during training and ``test.py`` share.

It drives a recipe through the methods that downstream recipes override (``feed_data``, ``test``,
``get_current_visuals``), spreads the images over the ranks, and returns every image's metrics in the data set's
order. The means are exact sums, correctly rounded, so they depend neither on the number of ranks nor on any order.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from basicsr.data.image_folders import common_folder, folder_list
from basicsr.engine.rng import preserved_rng
from basicsr.engine.run.signals import EvaluationStopped, stop_requested
from basicsr.metrics import calculate_metric
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.full_disk import tolerate_full_disk
from basicsr.utils.img_util import imwrite, tensor2img
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options.sections import DatasetOptions


@dataclass
class DatasetResult:
    """The metrics of each image of one data set, in its order."""

    dataset: str
    images: list[str] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def mean(self, metric: str) -> float:
        """The arithmetic mean over the images that have a value; NaN where none has."""
        values = [value for value in self.values[metric] if not math.isnan(value)]
        return math.fsum(values) / len(values) if values else math.nan

    def means(self) -> dict[str, float]:
        return {metric: self.mean(metric) for metric in self.values}


class Row(NamedTuple):
    """One image: its index in the data set, its name, its metrics, and whether the output was finite."""

    index: int
    name: str
    values: dict[str, float]
    finite: bool


def evaluate(
    model: Any,
    loader: DataLoader,
    metrics: dict[str, dict],
    *,
    save_path: Callable[[str], Path] | None = None,
    progress: bool = False,
    spread: bool = False,
    survive_full_disk: bool = False,
) -> DatasetResult:
    """Run a recipe over a data set.

    Args:
        model: The recipe.
        loader: Its data set is used.
        metrics: ``val.metrics``: name → options for :func:`basicsr.metrics.calculate_metric`.
        save_path: From an image's name to the file its result is saved to; None saves nothing.
        progress: Whether to draw a progress bar (on rank 0, in a terminal).
        spread: Whether every rank of the process group calls this and takes every n-th image.
        survive_full_disk: Whether to log an error and to save no more images if the disk is full; all are measured
            nevertheless. Otherwise this is an OSError.

    Returns:
        The results of all images; when spread, the same on every rank.

    Raises:
        ValueError: If an image cannot be measured, for instance since a metric needs a ground truth and the data set
            has none; the message names the image.
        EvaluationStopped: On all ranks, when a signal asks one of them to stop.
    """
    rank, world = get_dist_info() if spread else (0, 1)
    may_stop = spread or get_dist_info()[1] == 1  # not where rank 0 evaluates alone and the others wait for it
    dataset = loader.dataset
    indices = range(rank, len(dataset), world)
    shard = DataLoader(Subset(dataset, indices), batch_size=1, num_workers=loader.num_workers)
    rows: list[Row] = []
    saving = True
    with preserved_rng(), tqdm(total=len(indices), unit="image", disable=not _shows_bar(progress, rank)) as bar:
        for index, data in zip(indices, shard):
            if may_stop and stop_requested():
                break
            name = image_name(data, dataset.opt)
            bar.set_description(f"Test {name}")
            model.feed_data(data)
            model.test()
            visuals = model.get_current_visuals()
            try:
                images = _images(visuals)
                if save_path is not None and saving:
                    what = f"the picture of {name} in {dataset.opt['name']}, like those after it,"
                    saving = _save(images["img"], save_path(name), what, survive_full_disk)
                values = {metric: float(calculate_metric(images, options)) for metric, options in metrics.items()}
            except ValueError as error:
                raise ValueError(f"{dataset.opt['name']}, image {name}: {error}") from error
            rows.append(Row(index, name, values, bool(visuals["result"].isfinite().all())))
            for attribute in ("lq", "gt", "output"):  # free the memory before the next, maybe larger, image
                if hasattr(model, attribute):
                    delattr(model, attribute)
            bar.update()
    if world > 1:
        gathered: list[Any] = [None] * world
        dist.all_gather_object(gathered, rows)
        rows = sorted((row for part in gathered for row in part), key=lambda row: row.index)
    if len(rows) < len(dataset):
        raise EvaluationStopped
    _warn_about_results(dataset.opt["name"], rows)
    return DatasetResult(
        dataset.opt["name"],
        [row.name for row in rows],
        {metric: [row.values[metric] for row in rows] for metric in metrics},
    )


def image_name(data: Mapping[str, Any], dataset_opt: Mapping[str, Any]) -> str:
    """An image's name: its LQ (or GT) path below the data set's folder, with forward slashes, without the extension.

    Where the data set has several folders, it is the path below the folder that they have in common, so that images of
    two folders keep different names. A key of an LMDB has no extension, and stays whole.

    Args:
        data: A batch of one: ``lq_path`` or ``gt_path``.
        dataset_opt: The data set's options: its folders are the values of the keys ``dataroot…``.
    """
    path = Path((data.get("lq_path") or data["gt_path"])[0])
    in_lmdb = (DatasetOptions.of(dataset_opt).io_backend or {}).get("type") == "lmdb"
    roots = [
        value for key, value in dataset_opt.items() if key.startswith("dataroot") and isinstance(value, (str, list))
    ]
    root = next((root for root in roots if any(map(path.is_relative_to, folder_list(root)))), None)
    if root is not None:
        path = Path(os.path.relpath(path, common_folder(root)))
    elif not in_lmdb:
        path = Path(path.name)
    return path.as_posix() if in_lmdb else path.with_suffix("").as_posix()


def _warn_about_results(dataset: str, rows: list[Row]) -> None:
    """Warn of outputs that are not finite, metrics that are NaN, and images that share a name."""
    warn = get_root_logger().warning
    infinite = [row.name for row in rows if not row.finite]
    if infinite:
        warn(f"{dataset}: the output holds NaN or infinite values for {_some(infinite)}; the figures mean nothing.")
    for metric in rows[0].values if rows else ():
        absent = [row.name for row in rows if math.isnan(row.values[metric])]
        if absent:
            warn(f"{dataset}: {metric} is NaN for {_some(absent)}; its mean is over the other images.")
    twice = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if twice:
        warn(f"{dataset}: several images share the name {_some(twice)}; where images are saved, the last one is kept.")


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _shows_bar(progress: bool, rank: int) -> bool:
    return progress and rank == 0 and sys.stderr.isatty()


def _images(visuals: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What metrics compare: ``img``, and ``img2`` where there is a ground truth."""
    images = {"img": tensor2img([visuals["result"]])}
    return {**images, "img2": tensor2img([visuals["gt"]])} if "gt" in visuals else images


def _save(img: np.ndarray, path: Path, what: str, survive_full_disk: bool) -> bool:
    """Save an image; whether to go on with the next."""
    with tolerate_full_disk(what, when=survive_full_disk):
        imwrite(img, path)
        return True
    return False
