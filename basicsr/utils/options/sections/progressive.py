"""Schedules of patch and batch sizes in a training set's section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from ..finding import Finding
from ..lookup import section_of
from ..streams import training_sets
from .datasets import DatasetOptions
from .numbers import Iterations, Positive

_LISTS = ("gt_sizes", "mini_batch_sizes", "iters")


class ProgressiveOptions(DatasetOptions):
    """Keys of a dataset whose training patches may change in size during the run; it asks for each patch's size with
    :func:`basicsr.data.patch_schedule.gt_size_of`."""

    gt_size: int | None = None
    """Side of a training crop in GT pixels, a multiple of the scale."""
    gt_sizes: list[Positive] | None = None
    """Progressive training: side of the crop in each stage, at most `gt_size`."""
    mini_batch_sizes: list[Positive] | None = None
    """Progressive training: images per iteration and process in each stage, at most `batch_size_per_gpu`."""
    iters: list[Iterations] | None = None
    """Progressive training: iterations of each stage. The last one lasts to the end of the run, whatever its number."""


def progressive_rules(opt: Mapping[Any, Any]) -> Iterator[Finding]:
    """What is wrong with the schedules of the training sets, whatever class reads them."""
    for name, dataset in training_sets(section_of(opt, "datasets")).items():
        given = [key for key in _LISTS if isinstance(dataset, dict) and dataset.get(key) is not None]
        if not given:
            continue
        missing = [key for key in _LISTS if key not in given]
        lists = {key: dataset[key] for key in given}
        if missing:
            text = f"{', '.join(given)} need{'s' * (len(given) == 1)} {' and '.join(missing)} beside"
            yield Finding(("datasets", name), f"{text}: one number for each stage of the training in each list")
        elif all(_are_counts(values) for values in lists.values()):
            yield from _lengths(name, lists)
            yield from _largest(opt, name, dataset)
            yield from _parts(opt, name, dataset)
            yield from _stages(opt, name, dataset["iters"])


def _are_counts(values: Any) -> bool:
    """Whether the declaration takes a list; if not, it says so."""
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1 for value in values
    )


def _lengths(name: str, lists: Mapping[str, list]) -> Iterator[Finding]:
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        shown = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        yield Finding(("datasets", name, "gt_sizes"), f"each stage has a number in each of the lists, but {shown}")


def _largest(opt: Mapping[Any, Any], name: str, dataset: Mapping[Any, Any]) -> Iterator[Finding]:
    """Sizes fit the scale, and what stands beside the lists as the largest is."""
    scale = opt.get("scale")
    wrong = [size for size in dataset["gt_sizes"] if isinstance(scale, int) and scale > 0 and size % scale]
    if wrong:
        text = f"each must be a multiple of the scale {scale}, which {', '.join(map(str, wrong))} is not"
        yield Finding(("datasets", name, "gt_sizes"), text)
    for key, limit in (("gt_sizes", "gt_size"), ("mini_batch_sizes", "batch_size_per_gpu")):
        largest = dataset.get(limit)
        if isinstance(largest, int) and dataset[key] and max(dataset[key]) > largest:
            text = f"{max(dataset[key])} is above {limit}, {largest}, which stands for the largest of the stages"
            yield Finding(("datasets", name, key), text)


def _parts(opt: Mapping[Any, Any], name: str, dataset: Mapping[Any, Any]) -> Iterator[Finding]:
    parts = section_of(opt, "train").get("accumulate", 1)
    wrong = [size for size in dataset["mini_batch_sizes"] if isinstance(parts, int) and parts > 0 and size % parts]
    if wrong:
        text = (
            f"a batch of {wrong[0]} (datasets.{name}.mini_batch_sizes) cannot be divided into {parts} equal parts; "
            f"each stage's batch must be a multiple of accumulate"
        )
        yield Finding(("train", "accumulate"), text)


def _stages(opt: Mapping[Any, Any], name: str, iters: list) -> Iterator[Finding]:
    total = section_of(opt, "train").get("total_iter")
    if not isinstance(total, (int, float)) or isinstance(total, bool) or total < 1 or not iters:
        return
    ends = list(accumulate(iters))
    never = sum(end >= total for end in ends[:-1])
    key = ("datasets", name, "iters")
    if never:
        text = f"the run ends at iteration {total:g}, before the last {never} of {len(iters)} stages"
        yield Finding(key, text, is_notice=True)
    elif ends[-1] != total:
        text = (
            f"the stages are {ends[-1]:g} iterations long and the run {total:g}; the last stage lasts from iteration "
            f"{ends[-1] - iters[-1] + 1:g} to the end"
        )
        yield Finding(key, text, is_notice=True)
