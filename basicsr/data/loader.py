"""Build the dataset that a section of the options describes, and its loader."""

from __future__ import annotations

import logging
import math
import os
import random
import signal
from collections.abc import Iterable, Sized
from copy import deepcopy
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.options.sections import ProgressiveOptions
from basicsr.utils.registry import DATASET_REGISTRY

from .data_sampler import EnlargedSampler
from .patch_schedule import PatchSchedule, ScheduledBatches
from .prefetch_dataloader import PrefetchDataLoader
from .seeding import SeededDataset, mix_seed

__all__ = ["build_dataset", "build_dataloader", "worker_init_fn"]

_EVALUATION_SEED = 0


def build_dataset(dataset_opt: dict[str, Any]) -> Dataset:
    """Build a dataset from its section of an option file, which is left unchanged.

    Raises:
        KeyError: If no dataset of that type is registered.
        ValueError: If ``type`` is absent; whatever the dataset itself finds wrong with its options or files.
    """
    if "type" not in dataset_opt:
        raise ValueError("A dataset section needs the key `type`, the name of a registered dataset.")
    dataset = DATASET_REGISTRY.get(dataset_opt["type"])(deepcopy(dataset_opt))
    logging.getLogger("basicsr").info(
        f"Dataset [{type(dataset).__name__}] - {dataset_opt.get('name', 'unnamed')} is built."
    )
    return dataset


def build_dataloader(
    dataset: Dataset,
    dataset_opt: dict[str, Any],
    num_gpu: int = 1,
    dist: bool = False,
    sampler: Iterable[int] | None = None,
    seed: int | None = None,
) -> DataLoader:
    """Build the loader of a dataset. Creating its iterator draws nothing from the process's random generators.

    With an :class:`~basicsr.data.data_sampler.EnlargedSampler` a training sample depends on (seed, epoch, position in
    the epoch) only. Without a sampler the order depends on the seed, and random numbers come from the generators of
    the worker that reads the sample. An evaluation set is the same every time, whatever the seed.

    Args:
        dataset: The dataset; the loader's ``dataset`` wraps it and has its attributes.
        dataset_opt: ``phase`` (train, val or test) and, for training, ``batch_size_per_gpu`` and
            ``num_worker_per_gpu``; on request ``prefetch_mode`` and ``num_prefetch_queue``. ``pin_memory`` (where
            there is a GPU) and ``persistent_workers`` are on unless switched off. With a schedule (``gt_sizes``,
            ``mini_batch_sizes``, ``iters``) the loader's ``batch_sampler`` is a
            :class:`~basicsr.data.patch_schedule.ScheduledBatches`, which must know the iteration.
        num_gpu: GPUs served by this process; for training without ``dist`` batch and workers are multiplied by it.
        dist: Whether each GPU has a process of its own.
        sampler: The order of training; an evaluation set is always gone through in its own order, one by one.
        seed: The run's seed; None is the same as 0.

    Raises:
        ValueError: For another phase, an epoch that does not fill one batch, or a schedule without an
            :class:`~basicsr.data.data_sampler.EnlargedSampler`.
    """
    options, phase = ProgressiveOptions.of(dataset_opt), dataset_opt["phase"]
    if phase not in ("train", "val", "test"):
        raise ValueError(f"Unknown dataset phase '{phase}': expected train, val or test.")
    generator = torch.Generator()
    generator.manual_seed(mix_seed(seed or 0, get_dist_info()[0]))
    if phase != "train":
        return DataLoader(
            SeededDataset(dataset, _EVALUATION_SEED, seed_plain_index=True),
            batch_size=1,
            generator=generator,
            pin_memory=_pin_memory(options),
        )

    multiplier = 1 if dist else max(num_gpu, 1)
    schedule = PatchSchedule.of(options, dataset_opt["batch_size_per_gpu"] * multiplier, multiplier)
    num_workers = dataset_opt["num_worker_per_gpu"] * multiplier
    largest = max(stage.batch_size for stage in schedule.stages)
    _check_epoch_fills_a_batch(dataset if sampler is None else sampler, largest, options)
    arguments = {
        "dataset": SeededDataset(dataset, seed or 0, whole_batches=True),
        "collate_fn": _collate,
        **_order(sampler, schedule),
        "num_workers": num_workers,
        "generator": generator,
        "worker_init_fn": _init_worker,
        "pin_memory": _pin_memory(options),
        "persistent_workers": options.persistent_workers and num_workers > 0,
    }
    if options.prefetch_mode != "cpu":
        return DataLoader(**arguments)
    if num_workers == 0:
        # A thread that runs the dataset beside the training would share its random generators.
        logging.getLogger("basicsr").info("prefetch_mode: cpu has no effect without workers (num_worker_per_gpu: 0).")
        return DataLoader(**arguments)
    return PrefetchDataLoader(num_prefetch_queue=options.num_prefetch_queue, **arguments)


def _order(sampler: Iterable[int] | None, schedule: PatchSchedule) -> dict[str, Any]:
    """The arguments of a loader that say which samples make a batch."""
    if not schedule.is_progressive:
        size = schedule.stages[0].batch_size
        return {"batch_size": size, "shuffle": sampler is None, "sampler": sampler, "drop_last": True}
    if not isinstance(sampler, EnlargedSampler):
        raise ValueError("gt_sizes, mini_batch_sizes and iters need the order of an EnlargedSampler")
    return {"batch_sampler": ScheduledBatches(sampler, schedule)}


def _pin_memory(options: ProgressiveOptions) -> bool:
    return options.pin_memory and torch.cuda.is_available()


def _collate(samples: Any) -> Any:
    """Collate samples, unless the dataset has returned a batch."""
    return default_collate(samples) if isinstance(samples, list) else samples


def _check_epoch_fills_a_batch(epoch: Any, batch_size: int, options: ProgressiveOptions) -> None:
    samples = len(epoch) if isinstance(epoch, Sized) else math.inf
    if samples < batch_size:
        ratio = math.ceil(batch_size / max(samples, 1)) * options.dataset_enlarge_ratio
        raise ValueError(
            f"Dataset {options.name or 'unnamed'}: an epoch has {samples} samples per process, fewer than the "
            f"batch of {batch_size}, so no batch would ever be full. Set dataset_enlarge_ratio to at least {ratio}."
        )


def _init_worker(worker_id: int) -> None:
    """Limit a worker to one core, and shield it from signals that are meant for the training process."""
    cv2.setNumThreads(0)  # not 1, which hangs in a process that was forked beside OpenCV's threads
    # Ctrl-C and a scheduler's SIGTERM go to the whole process group. The training process then saves the run, for
    # which it needs its workers. The handler that a worker inherits would prevent terminating it.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def worker_init_fn(worker_id: int, num_workers: int, rank: int, seed: int) -> None:
    """Seed a worker of a plug-in's own loader, each differently, as BasicSR does. Our loaders seed every sample.

    Args:
        worker_id: The worker.
        num_workers: Workers of a process.
        rank: The process.
        seed: The run's seed.
    """
    worker_seed = num_workers * rank + worker_id + seed
    np.random.seed(worker_seed)
    random.seed(worker_seed)
