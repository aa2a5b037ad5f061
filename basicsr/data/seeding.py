"""Seeds the random numbers of a sample by the sample, so that they do not depend on the worker that reads it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info


class SampleIndex(int):
    """An index into a dataset with its epoch and position. It is an int, and can be pickled.

    Attributes:
        epoch: The epoch in which the sample is drawn.
        position: Its place in the order of the epoch, counted over all ranks. An image that occurs several times in
            an enlarged epoch has a position of its own each time.
        gt_size: The side of the patch to read, in GT pixels, where a schedule asks for one; see
            :func:`basicsr.data.patch_schedule.gt_size_of`.
    """

    epoch: int
    position: int
    gt_size: int | None

    def __new__(cls, value: int, epoch: int, position: int, gt_size: int | None = None) -> SampleIndex:
        index = super().__new__(cls, value)
        index.epoch = epoch
        index.position = position
        index.gt_size = gt_size
        return index

    def with_gt_size(self, gt_size: int | None) -> SampleIndex:
        """The same sample with a patch of a size."""
        return SampleIndex(int(self), self.epoch, self.position, gt_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleIndex, (int(self), self.epoch, self.position, self.gt_size)


class SeededDataset(Dataset):
    """A dataset whose samples depend on (seed, epoch, position) only, however they draw their random numbers.

    Before a sample is read, the generators of ``random``, NumPy and PyTorch (on the CPU) are seeded for it. Where this
    happens in the training process itself, they are put back afterwards.

    A dataset may have, beside ``__getitem__``, a faster ``read_batch(indices, seed_sample)``, which returns the samples
    as a batch. It calls ``seed_sample(index)`` before it draws for a sample, and draws from ``random`` alone. Where a
    subclass overrides ``__getitem__`` only, the samples are read one by one.

    Args:
        dataset: Any dataset with integer indices. Its attributes are reachable through this one.
        seed: The run's seed.
        seed_plain_index: What to do with an index that is not a :class:`SampleIndex`: seed with the index itself, so
            that a sample is the same every time, or leave the generators as they are.
        whole_batches: Whether to use the dataset's ``read_batch``, if it has one.
    """

    def __init__(
        self, dataset: Dataset, seed: int, seed_plain_index: bool = False, whole_batches: bool = False
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.seed_plain_index = seed_plain_index
        self._whole_batches = whole_batches and _reads_batches(type(dataset))

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        with self._preserve_if_shared(index, preserved_generators):
            return self._sample(index)

    def __getitems__(self, indices: list[int]) -> Any:
        """What a loader asks for: the samples, or the batch of them that the dataset makes."""
        if self._whole_batches:
            with self._preserve_if_shared(indices[0], _preserved_random):
                return self.dataset.read_batch(indices, self._seed_random)  # type: ignore[attr-defined]
        with self._preserve_if_shared(indices[0], preserved_generators):
            return [self._sample(index) for index in indices]

    def _sample(self, index: int) -> Any:
        seed = self._seed_of(index)
        if seed is not None:
            random.seed(seed)
            np.random.seed((seed & 0xFFFFFFFF, seed >> 32))
            # torch.manual_seed would seed the generators of the GPUs as well, which belong to the training.
            torch.default_generator.manual_seed(seed)
        is_sized = isinstance(index, SampleIndex) and index.gt_size is not None
        return self.dataset[index if seed is None or is_sized else int(index)]

    def _seed_random(self, index: int) -> None:
        """Seed ``random`` for a sample."""
        seed = self._seed_of(index)
        if seed is not None:
            random.seed(seed)

    def _seed_of(self, index: int) -> int | None:
        if isinstance(index, SampleIndex):
            return mix_seed(self.seed, index.epoch, index.position)
        return mix_seed(self.seed, 0, int(index)) if self.seed_plain_index else None

    def _preserve_if_shared(
        self, index: int, preserved: Callable[[], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        """Preserve generators that the training uses, too: a worker owns its generators, and may change them."""
        return nullcontext() if get_worker_info() is not None or self._seed_of(index) is None else preserved()

    def __getattr__(self, name: str) -> Any:
        # Special methods stay out: a wrapped __getitems__ would go past the seeding, and unpickling asks for some
        # before there is a dataset.
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(self.dataset, name)


def mix_seed(*values: int | str) -> int:
    """Mix integers and names into a seed of 64 bits; neighbouring inputs give unrelated seeds."""
    digest = hashlib.blake2b(",".join(map(str, values)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _reads_batches(kind: type) -> bool:
    """Whether a dataset class has a ``read_batch`` that knows of its ``__getitem__``, and not of an overridden one."""
    for parent in kind.__mro__:
        if "read_batch" in vars(parent):
            return True
        if "__getitem__" in vars(parent):
            return False
    return False


@contextmanager
def _preserved_random() -> Iterator[None]:
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def preserved_generators() -> Iterator[None]:
    """A block after which the generators of ``random``, NumPy and PyTorch (on the CPU) are as they were."""
    states = np.random.get_state(), torch.get_rng_state()
    with _preserved_random():
        try:
            yield
        finally:
            np.random.set_state(states[0])
            torch.set_rng_state(states[1])
