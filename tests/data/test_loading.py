"""Sampler, seeding and loader: what is drawn is a function of (seed, epoch, position) only."""

import math
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.seeding import SampleIndex, SeededDataset, mix_seed
from basicsr.utils.registry import DATASET_REGISTRY


class NoisyDataset(Dataset):
    """A user's dataset, which draws from every global generator."""

    opt = {"name": "noisy"}

    def __init__(self, size: int = 12) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        draws = [random.random(), np.random.rand(), torch.rand(()).item()]
        return {"index": index, "draws": torch.tensor(draws, dtype=torch.float64)}


def _options(**changes) -> dict:
    return {"name": "noisy", "phase": "train", "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, **changes}


def _run(epochs: int, skip: int = 0, sampler_seed: int = 3, **changes) -> list[tuple[list[int], list[list[float]]]]:
    dataset = NoisyDataset()
    sampler = EnlargedSampler(dataset, 1, 0, ratio=2, seed=sampler_seed)
    loader = build_dataloader(dataset, _options(**changes), sampler=sampler, seed=3)
    batches = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if epoch == 0:
            sampler.set_position(2 * skip)
        batches += [(batch["index"].tolist(), batch["draws"].tolist()) for batch in loader]
    return batches


def test_batches_do_not_depend_on_workers_and_resume_in_mid_epoch():
    expected = _run(2)
    assert len(expected) == 24
    assert _run(2, num_worker_per_gpu=2) == expected
    assert _run(2, num_worker_per_gpu=2, prefetch_mode="cpu", persistent_workers=True) == expected
    assert _run(2, skip=7) == expected[7:]
    assert _run(2, skip=7, num_worker_per_gpu=2) == expected[7:]


def test_repeats_of_an_image_and_epochs_draw_differently():
    draws = [tuple(sample) for _, batch in _run(2) for sample in batch]
    assert len(set(draws)) == len(draws) == 48
    assert all(len(set(column)) == 48 for column in zip(*draws))


def test_seeds_give_different_orders():
    orders = [[i for indices, _ in _run(1, sampler_seed=seed) for i in indices] for seed in (0, 1, 2)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_a_loader_leaves_the_global_generators_alone():
    dataset = NoisyDataset()
    for options in (_options(), _options(phase="val")):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = random.random(), np.random.rand(), torch.rand(()).item()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        sampler = EnlargedSampler(dataset, 1, 0) if options["phase"] == "train" else None
        assert len(list(build_dataloader(dataset, options, sampler=sampler, seed=0))) > 0
        assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_evaluation_is_in_order_and_the_same_every_time():
    runs = [
        [
            (b["index"].item(), b["draws"].tolist())
            for b in build_dataloader(NoisyDataset(), {"phase": phase}, seed=seed)
        ]
        for phase, seed in (("val", 1), ("test", 2))
    ]
    assert runs[0] == runs[1]
    assert [index for index, _ in runs[0]] == list(range(12))
    assert len({tuple(draws[0]) for _, draws in runs[0]}) == 12


def test_the_order_of_ranks_is_basicsrs():
    """randperm seeded by the epoch, modulo the dataset, every n-th for a rank."""
    samplers = [EnlargedSampler(range(7), 2, rank, ratio=3) for rank in (0, 1)]
    for sampler in samplers:
        sampler.set_epoch(5)
    size = math.ceil(7 * 3 / 2) * 2
    order = torch.randperm(size, generator=torch.Generator().manual_seed(5)).tolist()
    drawn = [list(sampler) for sampler in samplers]
    assert drawn == [[i % 7 for i in order[0::2]], [i % 7 for i in order[1::2]]]
    assert [len(sampler) for sampler in samplers] == [11, 11]
    assert sorted(index.position for rank in drawn for index in rank) == list(range(22))
    assert {index.epoch for rank in drawn for index in rank} == {5}


def test_set_epoch_goes_back_to_the_beginning():
    sampler = EnlargedSampler(range(4), 1, 0)
    sampler.set_position(3)
    assert len(list(sampler)) == 1
    sampler.set_epoch(0)
    assert len(list(sampler)) == 4


@pytest.mark.parametrize("consumed", [-1, 5])
def test_a_position_outside_the_epoch_is_refused(consumed):
    with pytest.raises(ValueError, match=f"after {consumed} samples of an epoch: it has 4"):
        EnlargedSampler(range(4), 1, 0).set_position(consumed)


def test_sampler_errors():
    with pytest.raises(ValueError, match="training set is empty"):
        EnlargedSampler([], 1, 0)
    with pytest.raises(ValueError, match="dataset_enlarge_ratio must be positive, not 0"):
        EnlargedSampler(range(3), 1, 0, ratio=0)


def test_sample_index_is_an_int_that_survives_pickling():
    index = pickle.loads(pickle.dumps(SampleIndex(4, epoch=2, position=9)))
    assert (index, index.epoch, index.position) == (4, 2, 9)
    assert "abcdef"[index] == "e"


def test_seeded_dataset_passes_attributes_but_not_batch_access():
    class Batched(NoisyDataset):
        def __getitems__(self, indices):
            raise AssertionError("goes past the seeding")

    dataset = SeededDataset(Batched(), seed=0)
    assert (dataset.opt["name"], dataset.size, len(dataset)) == ("noisy", 12, 12)
    with pytest.raises(AttributeError, match="no_such"):
        _ = dataset.no_such
    assert len(list(build_dataloader(Batched(), _options(), sampler=EnlargedSampler(range(12), 1, 0)))) == 6
    assert pickle.loads(pickle.dumps(SeededDataset(NoisyDataset(), seed=1))).size == 12


def test_generators_are_put_back_after_an_error():
    class Broken(NoisyDataset):
        def __getitem__(self, index):
            super().__getitem__(index)
            raise ValueError("broken")

    state = random.getstate()
    with pytest.raises(ValueError, match="broken"):
        SeededDataset(Broken(), seed=0)[SampleIndex(0, 0, 0)]
    assert random.getstate() == state


def test_mixed_seeds_are_unrelated():
    seeds = [mix_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)]
    assert len(set(seeds)) == 1000
    bits = np.array([[(seed >> bit) & 1 for bit in range(64)] for seed in seeds])
    # 1000 fair draws: 6 standard deviations of the mean are 0.095. Neighbours differ in half of the bits.
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.095
    assert abs((bits[1:] != bits[:-1]).mean() - 0.5) < 0.012
    assert mix_seed(1, 23) != mix_seed(12, 3)


def test_shuffling_without_a_sampler_depends_on_the_seed():
    def order(seed):
        loader = build_dataloader(NoisyDataset(), _options(), seed=seed)
        return [[b["index"].tolist() for b in loader] for _ in range(2)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[0] != order(1)[1]


def test_batch_and_workers_multiply_without_dist():
    loader = build_dataloader(NoisyDataset(), _options(num_worker_per_gpu=1), num_gpu=2)
    assert (loader.batch_size, loader.num_workers, loader.drop_last) == (4, 2, True)
    loader = build_dataloader(NoisyDataset(), _options(num_worker_per_gpu=1), num_gpu=2, dist=True)
    assert (loader.batch_size, loader.num_workers) == (2, 1)
    assert build_dataloader(NoisyDataset(), _options(), num_gpu=0).batch_size == 2


def test_workers_and_pinned_memory_by_default():
    loader = build_dataloader(NoisyDataset(), _options(num_worker_per_gpu=1))
    assert (loader.persistent_workers, loader.pin_memory) == (True, torch.cuda.is_available())
    off = _options(num_worker_per_gpu=1, persistent_workers=False, pin_memory=False)
    loader = build_dataloader(NoisyDataset(), off)
    assert (loader.persistent_workers, loader.pin_memory) == (False, False)
    assert not build_dataloader(NoisyDataset(), _options()).persistent_workers


def test_a_dataset_may_read_whole_batches():
    class Batched(NoisyDataset):
        def __getitem__(self, index):
            return {"index": index, "draw": random.random()}

        def read_batch(self, indices, seed_sample):
            samples = []
            for index in indices:
                seed_sample(index)
                samples.append(self[index])
            return {key: torch.tensor([sample[key] for sample in samples]) for key in samples[0]} | {"whole": True}

    class Overridden(Batched):
        def __getitem__(self, index):
            return super().__getitem__(index)

    def run(dataset, **changes):
        loader = build_dataloader(dataset, _options(**changes), sampler=EnlargedSampler(dataset, 1, 0), seed=3)
        return [(b["index"].tolist(), b["draw"].tolist(), "whole" in b) for b in loader]

    expected = run(Batched())
    assert all(whole for _, _, whole in expected) and len({draw for _, draws, _ in expected for draw in draws}) == 12
    assert run(Batched(), num_worker_per_gpu=2) == expected
    assert [(i, [np.float32(d) for d in ds]) for i, ds, _ in run(Overridden())] == [(i, ds) for i, ds, _ in expected]
    assert not any(whole for _, _, whole in run(Overridden()))


def test_an_epoch_smaller_than_a_batch_is_refused():
    sampler = EnlargedSampler(range(3), 1, 0)
    with pytest.raises(ValueError, match="noisy: an epoch has 3 samples.*batch of 8.*ratio to at least 3"):
        build_dataloader(NoisyDataset(3), _options(batch_size_per_gpu=8), sampler=sampler)


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="phase: must be one of 'train', 'val', 'test' or ~, not 'valid'"):
        build_dataloader(NoisyDataset(), {"phase": "valid"})


def test_build_dataset_copies_options():
    class Mutating(Dataset):
        def __init__(self, opt):
            opt["io_backend"].pop("type")

    DATASET_REGISTRY.register(Mutating)
    opt = {"type": "Mutating", "io_backend": {"type": "disk"}}
    assert isinstance(build_dataset(opt), Mutating)
    assert opt == {"type": "Mutating", "io_backend": {"type": "disk"}}
    with pytest.raises(ValueError, match="needs the key `type`"):
        build_dataset({"name": "x"})
    with pytest.raises(KeyError, match="Did you mean 'PairedImageDataset'"):
        build_dataset({"type": "PairedImageDatset"})


def test_workers_outlive_signals_to_the_process_group():
    """Ctrl-C and SIGTERM reach the whole group; the training saves and leaves, for which its workers must not die."""
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from basicsr.data import build_dataloader
received = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: received.append(number))
options = {"phase": "train", "batch_size_per_gpu": 1, "num_worker_per_gpu": 1}
batches = iter(build_dataloader(list(range(40)), options))
next(batches)
os.killpg(0, signal.SIGINT)
os.killpg(0, signal.SIGTERM)
print(len(list(batches)), len(received))
"""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, root], capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert (done.returncode, done.stdout) == (0, "39 2\n"), done.stderr
