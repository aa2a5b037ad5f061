"""What a recipe will do with its data, tried out on the first samples before the run starts.

A trial leaves nothing behind: weights, statistics, states of terms, random numbers, logs and timers are afterwards as
they were, and neither DDP nor the loss scaler takes part. It is small: two samples, and of those a corner. What fails
so is tried once more as the run will do it, so that nothing is refused that would run.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import basicsr
from basicsr.data.pair_advice import look_unlike
from basicsr.data.patch_schedule import Stage
from basicsr.data.stream import TrainingStream
from basicsr.engine.batch import Batch
from basicsr.engine.rng import preserved_rng
from basicsr.metrics import calculate_metric
from basicsr.utils.fastest import nothing_measured
from basicsr.utils.img_util import tensor2img
from basicsr.utils.labelled import labelled
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options.sections import TrainOptions
from basicsr.utils.preserved import preserved_state

from .sr_model import SRModel

_SAMPLES = 2  # batch statistics and terms that compare samples need more than one
_GRID = 16  # a corner has a patch's remainder modulo this, since networks work on windows and reduce by powers of 2
_MEASURED_SIDE = 256  # of the picture on which metrics are tried
_STEP = ("feed_data", "optimize_parameters")
_EVALUATION = ("feed_data", "test", "get_current_visuals", "dist_validation", "nondist_validation")


def try_step(model: Any, streams: Sequence[TrainingStream], first_iteration: int = 1) -> None:
    """Read the first samples of each stream and compute the losses and gradients of a training step on them.

    A loss or term that is not active at first is tried at its first iteration. Where sizes of patches and batches
    change (:mod:`basicsr.data.patch_schedule`), the first ones, the largest patch and the batch of most pixels are
    tried, too, on a GPU in full, so that it is seen now whether they fit in its memory.

    Of a recipe with an iteration of its own the samples alone are read.

    Args:
        model: The recipe.
        streams: The training data.
        first_iteration: The iteration that the run starts with.
    """
    batches = []
    for stream in streams:
        with labelled(f"datasets.{stream.section}"):
            batches.append(stream.first_samples(min(_SAMPLES, _part_size(model, stream, first_iteration))))
        _compare_first(f"datasets.{stream.section}", batches[-1])
    is_ours = _is_ours(model, _STEP) and model.step_g is not None
    if any(stream.schedule.is_progressive for stream in streams):
        _try_sizes(model, streams, first_iteration, computes=is_ours)
    if not is_ours:
        return
    starts = {1, *model.supervised.starts, *(term.schedule.start for term in model.distillation.terms.values())}
    iterations = sorted({max(start, first_iteration) for start in starts})
    for iteration in [i for i in iterations if i <= model.opt["train"]["total_iter"]]:
        try:
            _compute_gradients(model, iteration, _joined(streams, map(_corner, batches)))
        except Exception:
            whole = [stream.first_samples(_part_size(model, stream, iteration), iteration) for stream in streams]
            with _noting(f"This happened while iteration {iteration} was tried before the start of the run."):
                _compute_gradients(model, iteration, _joined(streams, whole))


def try_evaluation(model: Any, loader: DataLoader, section: str) -> None:
    """Read the first sample of an evaluation set, and try the network and the metrics on a part of it.

    Of a recipe with an evaluation of its own the sample alone is read.

    Args:
        model: The recipe.
        loader: The set's loader.
        section: The set's section of ``datasets``.

    Raises:
        ValueError: If the set is empty, the result has another size than the ground truth, or a metric fails.
    """
    with labelled(f"datasets.{section}"):
        if len(loader.dataset) == 0:
            raise ValueError("there are no images")
        with preserved_rng(), preserved_state(loader.dataset.dataset):
            sample = loader.collate_fn([loader.dataset[0]])
    _compare_first(f"datasets.{section}", sample)
    if not _is_ours(model, _EVALUATION) or not _is_plain(sample):
        return
    metrics = (model.opt.get("val") or {}).get("metrics") or {}
    part = _corner(sample, least=2 * _GRID)
    try:
        visuals = _restore(model, part)
    except Exception:
        with _noting(f"This happened while the first image of datasets.{section} was tried before the run."):
            visuals = _restore(model, sample)
    result, gt = visuals["result"], visuals.get("gt")
    for name, options in metrics.items():
        with labelled(f"val.metrics.{name}"), preserved_rng():
            if gt is not None and result.shape != gt.shape:
                _try_on_unequal(options, visuals, section)
            else:
                _try_metric(options, sample.get("gt", sample["lq"]), gt is not None)


def _try_sizes(model: Any, streams: Sequence[TrainingStream], first_iteration: int, computes: bool) -> None:
    """Read, and where the recipe is known compute, the most demanding batches of a schedule.

    Raises:
        ValueError: If an image is too small for its patch, a data set does not know of the schedule, or the memory of
            the GPU does not suffice.
    """
    last = model.opt["train"]["total_iter"]
    is_whole = computes and model.device.type == "cuda"
    for iteration in sorted({i for stream in streams for i in stream.schedule.demanding(first_iteration, last)}):
        batches = []
        for stream in streams:
            count = _part_size(model, stream, iteration)
            with labelled(f"datasets.{stream.section}"):
                batches.append(stream.first_samples(count if is_whole else min(_SAMPLES, count), iteration))
        if computes:
            if len(streams) > 1:
                Batch.of(_joined(streams, batches), torch.device("cpu"))  # corners may hide that the sizes differ
            try:
                _compute_gradients(model, iteration, _joined(streams, batches if is_whole else map(_corner, batches)))
            except torch.cuda.OutOfMemoryError as error:
                sizes = [f"datasets.{s.section}: {_shown(s.schedule.at(iteration))}" for s in streams]
                raise ValueError(
                    f"the batch of iteration {iteration} ({', '.join(sizes)}) does not fit in the memory of the GPU; "
                    f"use smaller gt_sizes or mini_batch_sizes, or train.accumulate ({str(error).splitlines()[0]})"
                ) from error


def _shown(stage: Stage) -> str:
    return f"{stage.batch_size} samples" + (f" of {stage.gt_size}×{stage.gt_size} GT pixels" if stage.gt_size else "")


def _part_size(model: Any, stream: TrainingStream, iteration: int) -> int:
    """Samples of a stream in each part of the batch."""
    return max(stream.schedule.at(iteration).batch_size // TrainOptions.of(model.opt["train"]).accumulate, 1)


def _joined(streams: Sequence[TrainingStream], batches: Any) -> Any:
    """What ``feed_data`` takes, as the training loop makes it."""
    batches = list(batches)
    return batches[0] if len(streams) == 1 else {s.name: batch for s, batch in zip(streams, batches)}


def _is_ours(model: Any, methods: Sequence[str]) -> bool:
    """Whether a recipe does with a batch what this package's recipes do."""
    package = Path(basicsr.__file__).parent
    functions = [inspect.unwrap(getattr(type(model), name)) for name in methods if isinstance(model, SRModel)]
    return bool(functions) and all(Path(f.__code__.co_filename).is_relative_to(package) for f in functions)


def _compute_gradients(model: SRModel, iteration: int, batch: Any) -> None:
    with _on_trial(model), model.distillation.on_trial():
        model.feed_data(batch)
        losses = model.try_losses(iteration)
        if losses:
            model.combine(losses).backward()
        for loss in model.distillation.try_own(iteration):
            loss.backward()


@torch.no_grad()
def _restore(model: SRModel, sample: Mapping[str, Any]) -> dict[str, Tensor]:
    with _on_trial(model):
        model.feed_data(sample)
        model.test()
        return model.get_current_visuals()


@contextmanager
def _on_trial(model: SRModel) -> Iterator[None]:
    """A block in which a recipe runs eagerly and without its wrappers, and after which it is as it was."""
    modules = [value for value in vars(model).values() if isinstance(value, nn.Module)]
    owners = [model, *modules, *model.supervised.modules.values()] if model.is_train else [model, *modules]
    owners += [model.timer] if hasattr(model, "timer") else []
    # What is compiled is compiled for the sizes of the run. Where nothing is, this is not worth importing Dynamo for.
    set_stance: Callable[..., Any] | None = getattr(torch.compiler, "set_stance", None)  # PyTorch 2.6's
    eager = set_stance("force_eager") if set_stance and "torch._dynamo" in sys.modules else nullcontext()
    with preserved_rng(), preserved_state(*owners), nothing_measured(), eager:
        for name, value in list(vars(model).items()):
            if isinstance(value, nn.Module) and model.get_bare_model(value) is not value:
                setattr(model, name, model.get_bare_model(value))
        yield


def _is_plain(batch: Any) -> bool:
    """Whether the images of a batch are ``lq`` (B, C, h, w) and, where there is one, ``gt`` (B, C, s·h, s·w)."""
    if not isinstance(batch, Mapping) or not isinstance(batch.get("lq"), Tensor):
        return False
    images = {name: value for name, value in batch.items() if isinstance(value, Tensor) and value.dim() > 2}
    gt = images.get("gt", batch["lq"])
    factors = [divmod(large, small) for large, small in zip(gt.shape[-2:], batch["lq"].shape[-2:])]
    return images.keys() <= {"lq", "gt"} and factors[0] == factors[1] and factors[0][0] >= 1 and factors[0][1] == 0


def _corner(batch: Any, least: int = _GRID) -> Any:
    """The upper left corner of the images of a batch; the batch itself where it has other images than LQ and GT."""
    if not _is_plain(batch):
        return batch
    height, width = (min(side, least + side % _GRID) for side in batch["lq"].shape[-2:])
    cut = {"lq": batch["lq"][..., :height, :width]}
    if "gt" in batch:
        factor = batch["gt"].shape[-1] // batch["lq"].shape[-1]
        cut["gt"] = batch["gt"][..., : factor * height, : factor * width]
    return {**batch, **cut}


def _compare_first(section: str, batch: Any) -> None:
    """Log where the first pair of a batch are clearly two different pictures."""
    if _is_plain(batch) and "gt" in batch and look_unlike(batch["lq"][0], batch["gt"][0]):
        files = [batch[key][0] for key in ("lq_path", "gt_path") if isinstance(batch.get(key), list)]
        get_root_logger().warning(
            f"{section}: the first LQ and GT images look like different pictures{f' ({files})' if files else ''}; "
            f"check that dataroot_lq and dataroot_gt are of the same data set."
        )


def _try_on_unequal(options: Mapping[str, Any], visuals: Mapping[str, Tensor], section: str) -> None:
    """Compute a metric of a result and a ground truth of another size, which one that does not compare them can do."""
    try:
        calculate_metric({"img": tensor2img([visuals["result"]]), "img2": tensor2img([visuals["gt"]])}, options)
    except Exception as error:
        raise ValueError(
            f"of an input of {_size(visuals['lq'])} pixels (height×width) network_g makes {_size(visuals['result'])}, "
            f"and the ground truth of datasets.{section} has {_size(visuals['gt'])}; its upscale must be `scale`"
        ) from error


def _try_metric(options: Mapping[str, Any], picture: Tensor, compares: bool) -> None:
    """Compute a metric of a picture that is a little blurred; ``compares`` says whether there is a ground truth."""
    part = picture[..., :_MEASURED_SIDE, :_MEASURED_SIDE]
    for image in (part, picture):
        image = tensor2img([image])
        images = {"img": cv2.blur(image, (3, 3))} | ({"img2": image} if compares else {})
        try:
            calculate_metric(images, options)
            return
        except Exception:
            if image.shape[:2] == tuple(picture.shape[-2:]):
                raise


def _size(image: Tensor) -> str:
    return "×".join(map(str, image.shape[-2:]))


@contextmanager
def _noting(note: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.__notes__ = [*getattr(error, "__notes__", []), note]
        raise
