"""An endless stream of batches of one training set, across epochs."""

from __future__ import annotations

import logging
from copy import copy
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from basicsr.utils.labelled import labelled
from basicsr.utils.options.sections import DatasetOptions
from basicsr.utils.options.streams import sections_of_streams
from basicsr.utils.preserved import preserved_state

from . import build_dataloader, build_dataset
from .data_sampler import EnlargedSampler
from .prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from .seeding import mix_seed, preserved_generators


class TrainingStream:
    """Returns the batches of one training set, epoch after epoch.

    Args:
        name: What the recipe calls it.
        section: The name of its section of ``datasets``.
        dataset_opt: That section.
        loader: Gives the batches of an epoch.
        sampler: The order in which ``loader`` goes through the data.
        prefetcher: Returns the batches of ``loader``.

    Attributes:
        epoch: The epoch of the last batch, from 0.
        position: How many samples of that epoch this rank has drawn.
    """

    def __init__(
        self,
        name: str,
        section: str,
        dataset_opt: dict[str, Any],
        loader: DataLoader,
        sampler: EnlargedSampler,
        prefetcher: CPUPrefetcher | CUDAPrefetcher,
    ) -> None:
        self.name, self.section, self.dataset_opt = name, section, dataset_opt
        self.loader, self.sampler = loader, sampler
        self.epoch = self.position = 0
        self._prefetcher = prefetcher

    def next(self) -> Any:
        """The next batch, which may be the first of a new epoch."""
        while (batch := self._prefetcher.next()) is None:
            self.start_at(self.epoch + 1, 0)
            self._prefetcher.reset()
        self.position += self.loader.batch_size
        return batch

    def first_samples(self, count: int) -> Any:
        """The first samples of the next batch, as a batch, read in this process; the stream stays where it is.

        The data set is as before, too: files that it opens when it is first read are not handed on to the loader's
        workers.

        Args:
            count: How many samples, at most those of a batch.
        """
        sampler = copy(self.sampler)
        if sampler.position >= sampler.num_samples:
            sampler.set_epoch(sampler.epoch + 1)
        seeded = self.loader.dataset
        with preserved_generators(), preserved_state(seeded.dataset):
            return self.loader.collate_fn(seeded.__getitems__(list(islice(sampler, count))))

    def start_at(self, epoch: int, position: int) -> None:
        """Start in the middle of an epoch, after ``position`` of its samples; to be called before the first batch.

        Raises:
            ValueError: If an epoch has fewer samples.
        """
        self.sampler.set_epoch(epoch)
        self.sampler.set_position(position)
        self.epoch, self.position = epoch, position


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
    sampler = EnlargedSampler(dataset, opt["world_size"], opt["rank"], options.dataset_enlarge_ratio, seed)
    loader = build_dataloader(dataset, dataset_opt, opt["num_gpu"], opt["dist"], sampler, seed)
    if options.prefetch_mode == "cuda" and opt["num_gpu"] != 0:
        logging.getLogger("basicsr").info("Use cuda prefetch dataloader")
        return TrainingStream(name, section, dataset_opt, loader, sampler, CUDAPrefetcher(loader, opt))
    return TrainingStream(name, section, dataset_opt, loader, sampler, CPUPrefetcher(loader))
