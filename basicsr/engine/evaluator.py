"""One evaluation for validation during training and for ``test.py``.

It drives a recipe through the methods that downstream recipes override (``feed_data``, ``test``,
``get_current_visuals``), spreads the images over the ranks, and returns every image's metrics in the data set's
order, so that the means do not depend on the number of ranks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from basicsr.metrics import calculate_metric
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.img_util import imwrite, tensor2img

from .rng import preserved_rng


@dataclass
class DatasetResult:
    """What one data set gave: each image's metrics, in the data set's order."""

    dataset: str
    images: list[str] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def mean(self, metric: str) -> float:
        """The arithmetic mean over the images, summed in the data set's order."""
        return sum(self.values[metric]) / len(self.values[metric])

    def means(self) -> dict[str, float]:
        return {metric: self.mean(metric) for metric in self.values}


def evaluate(
    model: Any,
    loader: DataLoader,
    metrics: dict[str, dict],
    save_path: Callable[[str], Path] | None = None,
    progress: bool = False,
    spread: bool = False,
) -> DatasetResult:
    """Run a recipe over a data set.

    Args:
        model: The recipe.
        loader: Its data set is used.
        metrics: ``val.metrics``: name → options for :func:`basicsr.metrics.calculate_metric`.
        save_path: From an image's name to the file its result is saved to; None saves nothing.
        progress: Whether to draw a progress bar (on rank 0, in a terminal).
        spread: Whether every rank of the process group calls this and takes every n-th image.

    Returns:
        The results of all images; when spread, the same on every rank.

    Raises:
        ValueError: If a metric needs a ground truth and the data set has none.
    """
    rank, world = get_dist_info() if spread else (0, 1)
    dataset = loader.dataset
    indices = range(rank, len(dataset), world)
    shard = DataLoader(Subset(dataset, indices), batch_size=1, num_workers=loader.num_workers)
    rows: list[tuple[int, str, dict[str, float]]] = []
    with preserved_rng(), tqdm(total=len(indices), unit="image", disable=not _show(progress, rank)) as bar:
        for index, data in zip(indices, shard):
            name = image_name(data)
            bar.set_description(f"Test {name}")
            model.feed_data(data)
            model.test()
            rows.append((index, name, _measure(model.get_current_visuals(), name, metrics, save_path)))
            for attribute in ("lq", "gt", "output"):  # free the memory before the next, maybe larger, image
                if hasattr(model, attribute):
                    delattr(model, attribute)
            bar.update()
    if world > 1:
        gathered: list[Any] = [None] * world
        dist.all_gather_object(gathered, rows)
        rows = sorted((row for part in gathered for row in part), key=lambda row: row[0])
    result = DatasetResult(dataset.opt["name"], values={metric: [] for metric in metrics})
    for _, name, values in rows:
        result.images.append(name)
        for metric in metrics:
            result.values[metric].append(values[metric])
    return result


def image_name(data: dict[str, Any]) -> str:
    """An image's name: the file name of its LQ (or GT) path without the extension."""
    return Path((data.get("lq_path") or data["gt_path"])[0]).stem


def _show(progress: bool, rank: int) -> bool:
    return progress and rank == 0 and sys.stderr.isatty()


def _measure(
    visuals: dict[str, torch.Tensor], name: str, metrics: dict[str, dict], save_path: Callable[[str], Path] | None
) -> dict[str, float]:
    images = {"img": tensor2img([visuals["result"]])}
    if "gt" in visuals:
        images["img2"] = tensor2img([visuals["gt"]])
    if save_path is not None:
        imwrite(images["img"], str(save_path(name)))
    return {metric: float(calculate_metric(images, options)) for metric, options in metrics.items()}
