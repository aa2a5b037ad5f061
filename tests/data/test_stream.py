"""Training streams: batches across epochs, seeds by name, and which sections of the options they are."""

import random

import pytest
import torch
from torch.utils.data import Dataset

from basicsr.data import stream as stream_module
from basicsr.data.prefetch_dataloader import CPUPrefetcher, PrefetchDataLoader
from basicsr.data.stream import build_streams
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY


@DATASET_REGISTRY.register()
class CountingDataset(Dataset):
    """Gives the index, and a random number as a crop would draw it."""

    def __init__(self, opt):
        self.size = opt["size"]

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"index": index, "draw": torch.tensor(random.random(), dtype=torch.float64)}


@MODEL_REGISTRY.register()
class OneStreamRecipe:
    """Written without the attribute."""


@MODEL_REGISTRY.register()
class TwoStreamRecipe:
    streams = ("train_s", "train_t")


def section(size, batch_size, phase="train", **changes):
    options = {"type": "CountingDataset", "name": "n", "phase": phase, "size": size}
    return options | {"batch_size_per_gpu": batch_size, "num_worker_per_gpu": 0, **changes}


def options(recipe="TwoStreamRecipe", rank=0, world=1, **datasets):
    run = {"num_gpu": 0, "dist": world > 1, "rank": rank, "world_size": world, "manual_seed": 3}
    return {"model_type": recipe, "datasets": datasets, **run}


def draw(stream, batches):
    """(epoch, position, indices, random numbers) of the next batches."""
    drawn = []
    for _ in range(batches):
        batch = stream.next()
        drawn.append((stream.epoch, stream.position, batch["index"].tolist(), batch["draw"].tolist()))
    return drawn


def one(**changes):
    (stream,) = build_streams(options("OneStreamRecipe", train=section(7, 3, **changes)))
    return stream


def test_one_epoch_follows_another():
    stream = one()
    assert (stream.epoch, stream.position) == (0, 0)
    drawn = draw(stream, 5)
    assert [(epoch, position) for epoch, position, _, _ in drawn] == [(0, 3), (0, 6), (1, 3), (1, 6), (2, 3)]
    assert drawn[0][2:] != drawn[2][2:] != drawn[4][2:]


@pytest.mark.parametrize("consumed", range(6))
def test_a_stream_goes_on_where_another_has_stopped(consumed):
    """In the middle of an epoch and at its end, which the next batch is past."""
    whole, first, second = one(), one(), one()
    expected = draw(whole, 7)[consumed:]
    draw(first, consumed)
    second.start_at(first.epoch, first.position)
    assert draw(second, 7 - consumed) == expected


def test_workers_change_nothing():
    assert draw(one(num_worker_per_gpu=2), 5) == draw(one(), 5)
    assert draw(one(num_worker_per_gpu=1, prefetch_mode="cpu"), 5) == draw(one(), 5)
    assert draw(one(num_worker_per_gpu=1, persistent_workers=False), 5) == draw(one(), 5)


def test_a_place_outside_the_epoch_is_refused():
    with pytest.raises(ValueError, match="after 8 samples of an epoch: it has 7"):
        one().start_at(0, 8)


def test_streams_come_in_the_recipes_order_and_have_epochs_of_their_own():
    opt = options(train_t=section(4, 2), val=section(2, 1, "val"), train_s=section(9, 3))
    streams = build_streams(opt)
    assert [stream.name for stream in streams] == ["train_s", "train_t"]
    steps = [[(stream.next(), (stream.epoch, stream.position))[1] for stream in streams] for _ in range(5)]
    assert [s for s, _ in steps] == [(0, 3), (0, 6), (0, 9), (1, 3), (1, 6)]
    assert [t for _, t in steps] == [(0, 2), (0, 4), (1, 2), (1, 4), (2, 2)]


def test_a_name_enters_the_order_and_the_random_numbers_of_several_streams():
    streams = build_streams(options(train_s=section(50, 5), train_t=section(50, 5)))
    (alone,) = build_streams(options("OneStreamRecipe", train_s=section(50, 5)))
    orders, draws = zip(*[([i for b in draw(s, 10) for i in b[2]], draw(s, 10)) for s in (*streams, alone)])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert [sorted(order) for order in orders] == [list(range(50))] * 3
    numbers = [number for drawn in draws for batch in drawn for number in batch[3]]
    assert len(set(numbers)) == len(numbers)
    assert [s.sampler.seed for s in streams] == [s.sampler.seed for s in build_streams(options(**_two()))]
    assert alone.sampler.seed == 3


def _two():
    return {"train_s": section(50, 5), "train_t": section(50, 5)}


def test_the_seeds_of_named_streams_stay_as_they_are():
    """Or a run would not continue as it began."""
    seeds = [stream.sampler.seed for stream in build_streams(options(**_two()))]
    assert seeds == [12373063909923093033, 13042845511542272158]


def test_ranks_share_an_epoch():
    ranks = [build_streams(options(rank=rank, world=2, **_two())) for rank in (0, 1)]
    for index in (0, 1):
        drawn = [i for streams in ranks for batch in draw(streams[index], 5) for i in batch[2]]
        assert sorted(drawn) == list(range(50))


def test_each_stream_has_its_own_prefetching(monkeypatch):
    class CopyingPrefetcher(CPUPrefetcher):
        def __init__(self, loader, opt):
            super().__init__(loader)
            copying.append(loader)

    copying = []
    monkeypatch.setattr(stream_module, "CUDAPrefetcher", CopyingPrefetcher)
    modes = {"train_s": section(4, 2, prefetch_mode="cuda"), "train_t": section(4, 2)}
    modes["train_t"] |= {"prefetch_mode": "cpu", "num_worker_per_gpu": 1}
    s, t = build_streams(options(**modes) | {"num_gpu": 1})
    assert copying == [s.loader]
    assert isinstance(t.loader, PrefetchDataLoader) and not isinstance(s.loader, PrefetchDataLoader)
    build_streams(options(**modes))
    assert len(copying) == 1, "there is no GPU to copy to"


@pytest.mark.parametrize("name", ["train", "train_1", "train_s"])
def test_a_recipe_with_one_stream_takes_a_section_whatever_its_suffix(name):
    (stream,) = build_streams(options("OneStreamRecipe", **{name: section(7, 3), "val": section(2, 1, "val")}))
    assert (stream.name, stream.sampler.seed, len(stream.sampler)) == ("train", 3, 7)


@pytest.mark.parametrize(
    ("recipe", "names", "message"),
    [
        ("OneStreamRecipe", [], "datasets: there is no training set; name its section 'train'"),
        (
            "OneStreamRecipe",
            ["train", "train_2"],
            "datasets: 'train' and 'train_2' are 2 training sets, and OneStreamRecipe trains on one, 'train'; keep one",
        ),
        (
            "TwoStreamRecipe",
            ["train_s"],
            "TwoStreamRecipe trains on the sections 'train_s' and 'train_t'; 'train_t' is missing",
        ),
        (
            "TwoStreamRecipe",
            ["train_s", "train_t", "train_u"],
            "'train_s' and 'train_t'; 'train_u' is not one of them: remove it",
        ),
        (
            "TwoStreamRecipe",
            ["train_s", "train_T"],
            "'train_t' is missing, and 'train_T' is not one of them: rename it",
        ),
    ],
)
def test_other_sections_than_the_recipe_declares_are_refused_before_any_is_built(recipe, names, message):
    with pytest.raises(ValueError, match=message):
        build_streams(options(recipe, **{name: {"phase": "train"} for name in names}))


@pytest.mark.parametrize("declared", ["train", ["train_s"], (), ("train_s", "train_s"), ("source", "target"), (1,)])
def test_a_wrong_declaration_is_refused(declared, monkeypatch):
    monkeypatch.setattr(TwoStreamRecipe, "streams", declared)
    with pytest.raises(ValueError, match=r"datasets: TwoStreamRecipe\.streams"):
        build_streams(options(train=section(4, 2)))
