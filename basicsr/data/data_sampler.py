"""The order of the samples of a training set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from .seeding import SampleIndex

_SEED_STRIDE = 0x9E3779B1  # odd, so that distinct seeds stay distinct modulo 2**32, and far apart


class EnlargedSampler(Sampler[int]):
    """A shuffled epoch over ``ratio`` copies of the dataset, divided among the ranks.

    The order depends on (seed, epoch) only; with seed 0 it is BasicSR's. Indices are :class:`SampleIndex`.

    Args:
        dataset: The dataset.
        num_replicas: Number of ranks.
        rank: This process's rank; it gets every ``num_replicas``-th sample from its own rank on.
        ratio: How often each sample of the dataset occurs in an epoch.
        seed: The run's seed.

    Raises:
        ValueError: If the dataset is empty, or ``ratio`` is not positive.
    """

    def __init__(self, dataset: Sized, num_replicas: int, rank: int, ratio: int = 1, seed: int = 0) -> None:
        if len(dataset) == 0:
            raise ValueError("The training set is empty: there is nothing to sample.")
        if ratio <= 0:
            raise ValueError(f"dataset_enlarge_ratio must be positive, not {ratio}.")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self.num_samples = math.ceil(len(dataset) * ratio / num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[SampleIndex]:
        generator = torch.Generator()
        # PyTorch uses the lower 32 bits of a seed.
        generator.manual_seed((self.epoch + self.seed * _SEED_STRIDE) % 2**32)
        order = torch.randperm(self.total_size, generator=generator).tolist()
        first = self.rank + self.position * self.num_replicas
        for position in range(first, self.total_size, self.num_replicas):
            yield SampleIndex(order[position] % len(self.dataset), self.epoch, position)

    def __len__(self) -> int:
        """Samples of a whole epoch for this rank, wherever the next iteration starts."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, which starts at its beginning."""
        self.epoch = epoch
        self.position = 0

    def set_position(self, samples_consumed: int) -> None:
        """Start iterations of this epoch after the samples that this rank has consumed.

        Raises:
            ValueError: If an epoch has fewer samples.
        """
        if not 0 <= samples_consumed <= self.num_samples:
            raise ValueError(
                f"Cannot resume after {samples_consumed} samples of an epoch: it has {self.num_samples} per process."
            )
        self.position = samples_consumed
