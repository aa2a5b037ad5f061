"""The start of a run: all that it needs is built and tried, and nothing is written.

Training, testing and ``basicsr check`` call the same functions: what the check passes, starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.stream import TrainingStream, build_streams
from basicsr.engine.run.changes import ADVICE, Changes
from basicsr.engine.run.identity import RunIdentity, hashes_of_files
from basicsr.engine.run.launch import is_own_refusal
from basicsr.engine.run.resume import find_resume_state, is_own_state, restore_streams
from basicsr.engine.run.retention import BestKeeper
from basicsr.models import build_model
from basicsr.models.changed_options import FreshSettings
from basicsr.models.sr_model import SRModel
from basicsr.models.trial import try_evaluation, try_step
from basicsr.utils.labelled import labelled
from basicsr.utils.logger import get_env_info, get_root_logger, require_log_packages
from basicsr.utils.misc import set_random_seed
from basicsr.utils.options import dict2str


@dataclass(frozen=True)
class TrainingRun:
    """A training run that can start.

    Attributes:
        streams: The training data, where the run starts in them.
        val_loaders: The validation sets.
        model: The recipe; when resuming, with its state restored.
        best: Tells which weights to keep as the best.
        state: The training state that the run continues from, or None.
        identity: Which run it is.
    """

    streams: tuple[TrainingStream, ...]
    val_loaders: list[DataLoader]
    model: Any
    best: BestKeeper
    state: dict[str, Any] | None
    identity: RunIdentity


@dataclass(frozen=True)
class TestRun:
    """A test run that can start.

    Attributes:
        loaders: The test sets, in the order of their sections' names.
        model: The recipe.
    """

    loaders: list[DataLoader]
    model: Any


def build_training(opt: dict, notices: list[str], as_read: Mapping[str, Any]) -> TrainingRun:
    """Build what the options describe, and try an iteration and an evaluation of it.

    Args:
        opt: The options; ``path`` is pointed at the networks of the state that the run continues from.
        notices: Sentences on the options, for the log.
        as_read: The options before the run's own settings were filled in.

    Raises:
        ValueError, KeyError, OSError, ImportError: If the run cannot start. The message names the option, as a rule.
    """
    best = BestKeeper(opt)
    state = find_resume_state(opt)
    if state:
        _take_over_seed(opt, state, as_read)
    options = {**as_read, "manual_seed": opt["manual_seed"]}
    files = hashes_of_files(options)
    if state:
        identity = RunIdentity.continuing(state, options, files, is_own_state(opt))
    else:
        identity = RunIdentity.new(options, files)
    changes = Changes.since(state or {}, options, files)
    logger = _open_log(opt, [*notices, *changes.notices()])
    _require_writable(opt, is_new=state is None)
    require_log_packages(opt)
    if state:
        changes.require_possible(state, int(opt["train"]["total_iter"]))
    with _explaining(changes):
        streams, val_loaders = create_streams(opt, logger), create_val_loaders(opt, logger)
        model = build_model(opt)
        if state:
            _resume(model, state, streams, changes)
    if state:
        changes.require_consent()
        logger.info(f"Resuming training from epoch: {state['epoch']}, iter: {state['iter']}.")
    try_step(model, streams, state["iter"] + 1 if state else 1)
    if isinstance(model, SRModel):
        model.distillation.networks.frozen.require_weights()
    sections = [name for name, section in opt["datasets"].items() if section["phase"] == "val"]
    for name, loader in zip(sections, val_loaders):
        try_evaluation(model, loader, name)
    return TrainingRun(streams, val_loaders, model, best, state, identity)


def build_test(opt: dict, notices: list[str]) -> TestRun:
    """As :func:`build_training`, for a test."""
    logger = _open_log(opt, notices)
    _require_writable(opt, is_new=True)
    loaders = []
    for name, dataset_opt in sorted(opt["datasets"].items()):
        loaders.append(_evaluation_loader(opt, name))
        logger.info(f"Number of test images in {dataset_opt['name']}: {len(loaders[-1].dataset)}")
    model = build_model(opt)
    for name, loader in zip(sorted(opt["datasets"]), loaders):
        try_evaluation(model, loader, name)
    return TestRun(loaders, model)


def create_streams(opt: dict, logger: Any) -> tuple[TrainingStream, ...]:
    """The training sets that the recipe declares, in its order; what they are is logged."""
    streams = build_streams(opt)
    total_iters = int(opt["train"]["total_iter"])
    for stream in streams:
        images, steps = len(stream.sampler.dataset), len(stream.loader)
        stages = ", then ".join(str(s.batch_size) for s in stream.schedule.stages if stream.schedule.is_progressive)
        logger.info(
            f"Training statistics{f' of {stream.name}' if len(streams) > 1 else ''}:\n"
            f"\tNumber of train images: {images}\n"
            f"\tDataset enlarge ratio: {stream.dataset_opt.get('dataset_enlarge_ratio', 1)}\n"
            f"\tBatch size per gpu: {stages or stream.dataset_opt['batch_size_per_gpu']}\n"
            f"\tWorld size (gpu number): {opt['world_size']}\n"
            f"\tRequire iter number per epoch: {steps}\n"
            f"\tTotal epochs: {stream.schedule.epochs(stream.sampler.num_samples, total_iters)}; iters: {total_iters}."
        )
    return streams


def create_val_loaders(opt: dict, logger: Any) -> list[DataLoader]:
    """The loaders of the validation sets."""
    loaders = []
    for name, dataset_opt in opt["datasets"].items():
        if dataset_opt["phase"] == "val":
            loaders.append(_evaluation_loader(opt, name))
            logger.info(f"Number of val images/folders in {dataset_opt['name']}: {len(loaders[-1].dataset)}")
        elif dataset_opt["phase"] != "train":  # in options that a plug-in has made by hand
            raise ValueError(
                f"datasets.{name}: in training a section is named train… or val…, not '{dataset_opt['phase']}'"
            )
    return loaders


def _evaluation_loader(opt: dict, section: str) -> DataLoader:
    dataset_opt = opt["datasets"][section]
    with labelled(f"datasets.{section}"):
        dataset = build_dataset(dataset_opt)
        return build_dataloader(dataset, dataset_opt, opt["num_gpu"], opt["dist"], None, opt["manual_seed"])


def _take_over_seed(opt: dict, state: Mapping[str, Any], as_read: Mapping[str, Any]) -> None:
    """Keep the seed that the run has drawn, where the options name none."""
    saved = (state.get("options") or {}).get("manual_seed")
    if as_read.get("manual_seed") is None and isinstance(saved, int):
        opt["manual_seed"] = saved
        set_random_seed(saved + opt["rank"])


def _resume(model: Any, state: dict[str, Any], streams: tuple[TrainingStream, ...], changes: Changes) -> None:
    """Restore a recipe and its streams from a training state."""
    fresh = FreshSettings.of(model)
    try:
        model.resume_training(state)
        restore_streams(state, streams, model.opt["world_size"])
    except Exception as error:  # what a state of wrong content leads to; one of a plug-in keeps its traceback
        is_told = isinstance(error, (ValueError, ImportError, OSError)) and is_own_refusal(error)
        if is_told or not type(model).__module__.startswith("basicsr."):
            raise
        raise ValueError(
            f"the training state {model.opt['path']['resume_state']} does not fit what the options describe "
            f"({type(error).__name__}: {error}); {ADVICE}"
        ) from error
    fresh.restore(model, [change.name for change in changes.taken])


@contextmanager
def _explaining(changes: Changes) -> Iterator[None]:
    """A block whose refusals name the options that differ from those of the training state."""
    try:
        yield
    except ValueError as error:
        if not changes.explain() or type(error) is not ValueError:
            raise
        raise ValueError(f"{error}{changes.explain()}") from error


def _open_log(opt: dict, notices: list[str]) -> Any:
    """Log the machine, the options and what there is to say about them."""
    logger = get_root_logger()
    logger.info(get_env_info())
    logger.info(dict2str(opt))
    for notice in notices:
        logger.warning(notice)
    return logger


def _require_writable(opt: Mapping[str, Any], is_new: bool) -> None:
    """Refuse folders of the run that cannot be made, or not be written to.

    Args:
        opt: The options.
        is_new: Whether the run begins: an earlier run's folder is then renamed.

    Raises:
        PermissionError: If so.
    """
    path = opt["path"]
    root = path["experiments_root" if opt["is_train"] else "results_root"]
    folders = [Path(root).parent / "new"] if is_new else [Path(path[key]) for key in ("models", "training_states")]
    for folder in [Path(root), *folders]:
        place = folder.absolute()
        while not os.path.lexists(place):
            place = place.parent
        if not (place.is_dir() and os.access(place, os.R_OK | os.W_OK | os.X_OK)):
            raise PermissionError(
                f"the run's folder {root} cannot be made or written to: {place} is not a folder, is read-only, or its "
                f"rights forbid it"
            )
