"""Random numbers of a sample as a function of what is drawn, not of who draws it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info


class SampleIndex(int):
    """An index into a dataset that knows when it is drawn; it works wherever an int does, and can be pickled.

    Attributes:
        epoch: The epoch in which the sample is drawn.
        position: Its place in the order of the epoch, counted over all ranks. An image that occurs several times in
            an enlarged epoch has a position of its own each time.
    """

    epoch: int
    position: int

    def __new__(cls, value: int, epoch: int, position: int) -> SampleIndex:
        index = super().__new__(cls, value)
        index.epoch = epoch
        index.position = position
        return index

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleIndex, (int(self), self.epoch, self.position)


class SeededDataset(Dataset):
    """A dataset whose samples depend on (seed, epoch, position) only, however they draw their random numbers.

    Before a sample is read, the generators of ``random``, NumPy and PyTorch (on the CPU) are seeded for it. Where this
    happens in the training process itself, they are put back afterwards.

    Args:
        dataset: Any dataset with integer indices. Its attributes are reachable through this one.
        seed: The run's seed.
        seed_plain_index: What to do with an index that is not a :class:`SampleIndex`: seed with the index itself, so
            that a sample is the same every time, or leave the generators as they are.
    """

    def __init__(self, dataset: Dataset, seed: int, seed_plain_index: bool = False) -> None:
        self.dataset = dataset
        self.seed = seed
        self.seed_plain_index = seed_plain_index

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, SampleIndex):
            epoch, position = index.epoch, index.position
        elif self.seed_plain_index:
            epoch, position = 0, int(index)
        else:
            return self.dataset[index]
        seed = mix_seed(self.seed, epoch, position)
        if get_worker_info() is not None:
            _seed_generators(seed)
            return self.dataset[int(index)]
        with _preserved_generators():
            _seed_generators(seed)
            return self.dataset[int(index)]

    def __getattr__(self, name: str) -> Any:
        # Special methods stay out: a wrapped __getitems__ would go past the seeding, and unpickling asks for some
        # before there is a dataset.
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(self.dataset, name)


def mix_seed(*values: int) -> int:
    """Mix integers into a seed of 64 bits; neighbouring inputs give unrelated seeds."""
    digest = hashlib.blake2b(",".join(map(str, values)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed((seed & 0xFFFFFFFF, seed >> 32))
    # torch.manual_seed would seed the generators of the GPUs as well, which belong to the training.
    torch.default_generator.manual_seed(seed)


@contextmanager
def _preserved_generators() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
