"""Progressive training: sizes of patches and batches that change with the iteration.

Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, section 4: training
starts on large batches of small patches and goes on to small batches of large ones.

A batch is asked for by its indices, and each of them says how large its patch is to be, so that a worker reads no more
than is used. A dataset takes part by one line, in ``__getitem__`` and in ``read_batch`` if it has one::

    size = gt_size_of(index, self.opt["gt_size"])

and one that reads its samples from other datasets by another: ``self.parts[k][same_patch(index, own_index)]``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from torch.utils.data import Sampler

from basicsr.utils.options.sections import ProgressiveOptions

from .data_sampler import EnlargedSampler
from .seeding import SampleIndex


class Stage(NamedTuple):
    """Iterations with patches of one size and batches of one size.

    Attributes:
        first: The first iteration, counted from 1.
        gt_size: Side of a patch in GT pixels; None where the dataset alone decides.
        batch_size: Samples per batch of this process.
    """

    first: int
    gt_size: int | None
    batch_size: int

    @property
    def pixels(self) -> int:
        """GT pixels of a batch."""
        return self.batch_size * (self.gt_size or 0) ** 2


class PatchSchedule:
    """The sizes of patches and batches by iteration. The last stage lasts to the end of the run.

    Args:
        stages: In the order of their first iterations, the first of which is 1.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self._starts = [stage.first for stage in stages]

    @classmethod
    def of(cls, options: ProgressiveOptions, batch_size: int, multiplier: int = 1) -> PatchSchedule:
        """The schedule of a training set; a single stage where its options have none.

        Args:
            options: The options of the set, which were checked.
            batch_size: The size of a batch where there is no schedule.
            multiplier: By how much the batches of the schedule are larger than in the options: the GPUs that this
                process serves.
        """
        if not options.gt_sizes:
            return cls([Stage(1, None, batch_size)])
        firsts = [1, *(1 + end for end in accumulate(options.iters[:-1]))]
        batches = [size * multiplier for size in options.mini_batch_sizes]
        return cls([Stage(*values) for values in zip(firsts, options.gt_sizes, batches)])

    @property
    def is_progressive(self) -> bool:
        """Whether the options have a schedule."""
        return self.stages[0].gt_size is not None

    def at(self, iteration: int) -> Stage:
        """The stage that an iteration, counted from 1, belongs to."""
        return self.stages[bisect_right(self._starts, iteration) - 1]

    def demanding(self, first: int, last: int) -> list[int]:
        """Of a range of iterations, the first, one with the largest patch, and one with a batch of most pixels."""
        ahead = [first, *(stage.first for stage in self.stages if first < stage.first <= last)]
        largest = [max(ahead, key=key) for key in (lambda i: self.at(i).gt_size or 0, lambda i: self.at(i).pixels)]
        return sorted({first, *largest})

    def epochs(self, samples: int, iterations: int) -> int:
        """How many epochs a run begins.

        Args:
            samples: Samples of an epoch for this process, enough for every batch.
            iterations: Iterations of the run.
        """
        count, left = 1, samples
        for stage, end in zip(self.stages, [*(start - 1 for start in self._starts[1:]), iterations]):
            batches = min(end, iterations) - stage.first + 1
            while batches > 0:
                taken = min(left // stage.batch_size, batches)
                left, batches = left - taken * stage.batch_size, batches - taken
                if batches > 0:
                    count, left = count + 1, samples
        return count


class ScheduledBatches(Sampler[list[SampleIndex]]):
    """The batches of an epoch by a schedule, as lists of indices that know the size of their patch.

    An epoch goes through its samples once. It ends when fewer are left than the next batch needs; an epoch may have
    batches of several stages, and a stage may begin in the middle of one.

    Args:
        sampler: The order of the samples, from the position where it stands.
        schedule: The sizes.

    Attributes:
        iteration: The iteration before that of the next batch.
    """

    def __init__(self, sampler: EnlargedSampler, schedule: PatchSchedule) -> None:
        self.sampler, self.schedule = sampler, schedule
        self.iteration = 0

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        samples, iteration = iter(self.sampler), self.iteration
        while True:
            iteration += 1
            stage = self.schedule.at(iteration)
            batch = [sample.with_gt_size(stage.gt_size) for sample in islice(samples, stage.batch_size)]
            if len(batch) < stage.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        """Batches of a whole epoch that starts with the next iteration."""
        samples, count = len(self.sampler), 0
        while (samples := samples - self.schedule.at(self.iteration + count + 1).batch_size) >= 0:
            count += 1
        return count


def gt_size_of(index: int, default: int) -> int:
    """The side of the patch that a sample is asked for with, in GT pixels.

    Args:
        index: What a dataset's ``__getitem__`` or ``read_batch`` got.
        default: The side where no schedule asks for another: the dataset's ``gt_size``.
    """
    asked = index.gt_size if isinstance(index, SampleIndex) else None
    return default if asked is None else asked


def same_patch(index: int, value: int) -> int:
    """Another index that asks for a patch of the same size.

    Args:
        index: What a dataset's ``__getitem__`` got.
        value: The index to ask another dataset for.
    """
    return SampleIndex(value, index.epoch, index.position, index.gt_size) if isinstance(index, SampleIndex) else value
