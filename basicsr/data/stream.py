"""An endless stream of batches of one training set, across epochs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from copy import copy
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from basicsr.utils.labelled import labelled
from basicsr.utils.options.sections import DatasetOptions, MixingOptions, TrainOptions
from basicsr.utils.options.streams import sections_of_streams
from basicsr.utils.preserved import preserved_state

from . import build_dataloader, build_dataset
from .data_sampler import EnlargedSampler
from .mixing import Mixing
from .patch_schedule import PatchSchedule, ScheduledBatches, Stage
from .prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from .seeding import mix_seed, preserved_generators


class TrainingStream:
    """Returns the batches of one training set, epoch after epoch; each iteration of the run takes one.

    Args:
        name: What the recipe calls it.
        section: The name of its section of ``datasets``.
        dataset_opt: That section.
        loader: Gives the batches of an epoch.
        sampler: The order in which ``loader`` goes through the data.
        prefetcher: Returns the batches of ``loader``.
        mixing: Mixes the samples of a batch, where the options ask for it.

    Attributes:
        epoch: The epoch of the last batch, from 0.
        position: How many samples of that epoch this rank has drawn.
        iteration: The iteration of the last batch; 0 before the first.
        schedule: The sizes of patches and batches by iteration.
    """

    def __init__(
        self,
        name: str,
        section: str,
        dataset_opt: dict[str, Any],
        loader: DataLoader,
        sampler: EnlargedSampler,
        prefetcher: CPUPrefetcher | CUDAPrefetcher,
        mixing: Mixing | None = None,
    ) -> None:
        self.name, self.section, self.dataset_opt = name, section, dataset_opt
        self.loader, self.sampler = loader, sampler
        self.epoch = self.position = self.iteration = 0
        self._prefetcher, self._mixing = prefetcher, mixing
        self._stage: Stage | None = None
        batches = loader.batch_sampler
        is_scheduled = isinstance(batches, ScheduledBatches)
        self.schedule = batches.schedule if is_scheduled else PatchSchedule([Stage(1, None, loader.batch_size)])

    def next(self) -> Any:
        """The next batch, which may be the first of a new epoch."""
        while (batch := self._prefetcher.next()) is None:
            self.start_at(self.epoch + 1, 0, self.iteration)
            self._prefetcher.reset()
        self.iteration += 1
        stage = self.schedule.at(self.iteration)
        self.position += stage.batch_size
        if self.schedule.is_progressive and stage != self._stage:
            logging.getLogger("basicsr").info(
                f"iter {self.iteration}: patch {stage.gt_size}, batch {stage.batch_size}"
                + (f" (datasets.{self.section})" if self.name != "train" else "")
            )
        self._stage = stage
        return self._finished(batch, self.iteration)

    def first_samples(self, count: int, iteration: int | None = None) -> Any:
        """The first samples of the next batch, as a batch, read in this process; the stream stays where it is.

        The data set is as before, too: files that it opens when it is first read are not handed on to the loader's
        workers.

        Args:
            count: How many samples, at most those of a batch.
            iteration: The iteration whose size of patches they are to have; the next one when absent.
        """
        iteration = self.iteration + 1 if iteration is None else iteration
        sampler = copy(self.sampler)
        if sampler.position >= sampler.num_samples:
            sampler.set_epoch(sampler.epoch + 1)
        seeded, gt_size = self.loader.dataset, self.schedule.at(iteration).gt_size
        indices = [index.with_gt_size(gt_size) for index in islice(sampler, count)]
        with preserved_generators(), preserved_state(seeded.dataset):
            return self._finished(self.loader.collate_fn(seeded.__getitems__(indices)), iteration)

    def start_at(self, epoch: int, position: int, iteration: int = 0) -> None:
        """Start in the middle of an epoch, after ``position`` of its samples; to be called before the first batch.

        Args:
            epoch: The epoch.
            position: Samples of it that this rank has drawn.
            iteration: The iteration of the last batch.

        Raises:
            ValueError: If an epoch has fewer samples.
        """
        self.sampler.set_epoch(epoch)
        self.sampler.set_position(position)
        if isinstance(self.loader.batch_sampler, ScheduledBatches):
            self.loader.batch_sampler.iteration = iteration
        self.epoch, self.position, self.iteration = epoch, position, iteration

    @property
    def needs_iterations(self) -> bool:
        """Whether the batches depend on the iteration, so that only this object can hand them out."""
        return self.schedule.is_progressive or self._mixing is not None

    def _finished(self, batch: Any, iteration: int) -> Any:
        """A batch as the recipe gets it: of the size that was asked for, and mixed."""
        gt_size = self.schedule.at(iteration).gt_size
        if gt_size is not None:
            self._require_size(batch, gt_size)
        return batch if self._mixing is None else self._mixing(batch, iteration)

    def _require_size(self, batch: Any, gt_size: int) -> None:
        """Refuse a data set that does not know of the schedule.

        Raises:
            ValueError: If its patches have another size than was asked for.
        """
        key = next((k for k in ("gt", "lq") if isinstance(batch, Mapping) and isinstance(batch.get(k), Tensor)), None)
        scale = (self.dataset_opt.get("scale") or 1) if key == "lq" else 1
        shape = tuple(scale * side for side in batch[key].shape[-2:]) if key else ()
        if shape != (gt_size, gt_size):
            kind = type(self.loader.dataset.dataset).__name__
            found = (
                f"{kind} gives {'×'.join(map(str, shape))}" if key else f"the batches of {kind} hold no gt and no lq"
            )
            raise ValueError(
                f"datasets.{self.section}: gt_sizes asks for patches of {gt_size}×{gt_size} GT pixels, and {found}. "
                f"Its class must take the size from basicsr.data.patch_schedule.gt_size_of(index, …), see "
                f"docs/progressive_training.md; or remove gt_sizes, mini_batch_sizes and iters"
            )


def build_streams(opt: dict[str, Any]) -> tuple[TrainingStream, ...]:
    """Build the training sets that the recipe declares, in its order.

    Where there are several, a stream's name is part of its seed, so that two of them draw differently from one folder.

    Args:
        opt: The options of the run.

    Raises:
        ValueError: If the training sets of the options are not those that the recipe declares.
    """
    datasets, seed = opt["datasets"], opt["manual_seed"]
    try:
        sections = sections_of_streams(
            opt["model_type"], [name for name, dataset in datasets.items() if dataset["phase"] == "train"]
        )
    except ValueError as error:
        raise ValueError(f"datasets: {error}") from error
    several = len(sections) > 1
    streams = []
    for name, section in sections.items():
        with labelled(f"datasets.{section}"):
            own_seed = mix_seed(seed, name) if several else seed
            streams.append(_build_stream(name, section, opt, datasets[section], own_seed))
    return tuple(streams)


def _build_stream(
    name: str, section: str, opt: dict[str, Any], dataset_opt: dict[str, Any], seed: int
) -> TrainingStream:
    dataset = build_dataset(dataset_opt)
    options = DatasetOptions.of(dataset_opt)
    mixing_options = MixingOptions.of(TrainOptions.of(opt.get("train")).mixing_augs)
    mixing = Mixing(mixing_options, seed, opt["rank"]) if mixing_options.is_on else None
    sampler = EnlargedSampler(dataset, opt["world_size"], opt["rank"], options.dataset_enlarge_ratio, seed)
    loader = build_dataloader(dataset, dataset_opt, opt["num_gpu"], opt["dist"], sampler, seed)
    if options.prefetch_mode == "cuda" and opt["num_gpu"] != 0:
        logging.getLogger("basicsr").info("Use cuda prefetch dataloader")
        return TrainingStream(name, section, dataset_opt, loader, sampler, CUDAPrefetcher(loader, opt), mixing)
    return TrainingStream(name, section, dataset_opt, loader, sampler, CPUPrefetcher(loader), mixing)
