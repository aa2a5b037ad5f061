"""Schedules of patch and batch sizes: what is asked for is a function of (seed, epoch, position, iteration) only."""

import logging
import pickle
import random

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.memmap.writer import create_memmap
from basicsr.data.patch_schedule import PatchSchedule, Stage, gt_size_of, same_patch
from basicsr.data.seeding import SampleIndex, SeededDataset
from basicsr.data.stream import build_streams
from basicsr.utils.image_header import size_in_header
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.options.sections import ProgressiveOptions
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

RESTORMER = {
    "gt_sizes": [128, 160, 192, 256, 320, 384],
    "mini_batch_sizes": [8, 5, 4, 2, 1, 1],
    "iters": [92000, 64000, 48000, 36000, 36000, 24000],
}
SMALL = {"gt_sizes": [8, 12, 16], "mini_batch_sizes": [4, 3, 2], "iters": [3, 2, 1], "gt_size": 16}
# Of 13 samples, by hand: (iteration, epoch, samples drawn of it, batch, patch). One sample is left over at the end of
# each of the epochs, too few for a batch.
BY_HAND = [
    (1, 0, 4, 4, 8),
    (2, 0, 8, 4, 8),
    (3, 0, 12, 4, 8),
    (4, 1, 3, 3, 12),
    (5, 1, 6, 3, 12),
    (6, 1, 8, 2, 16),
    (7, 1, 10, 2, 16),
    (8, 1, 12, 2, 16),
    (9, 2, 2, 2, 16),
]


@DATASET_REGISTRY.register()
class SizedDataset(Dataset):
    """Gives patches of the size that it is asked for, the index, and a random number as a crop would draw it."""

    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return self.opt["size"]

    def __getitem__(self, index):
        side = gt_size_of(index, self.opt["gt_size"])
        draw = torch.tensor(random.random(), dtype=torch.float64)
        return {"lq": torch.zeros(1, side // 2, side // 2), "gt": torch.zeros(1, side, side), "i": index, "draw": draw}


@DATASET_REGISTRY.register()
class IgnorantDataset(SizedDataset):
    """Written before there were schedules."""

    keys = ("lq", "gt")

    def __getitem__(self, index):
        assert type(index) is int or self.opt.get("gt_sizes"), "without a schedule nothing new reaches a plug-in"
        sample = super().__getitem__(int(index))
        return {key: value for key, value in sample.items() if key in self.keys}


@DATASET_REGISTRY.register()
class IgnorantLQDataset(IgnorantDataset):
    keys = ("lq",)


@DATASET_REGISTRY.register()
class NoImagesDataset(IgnorantDataset):
    keys = ("draw",)


@MODEL_REGISTRY.register()
class OneScheduleRecipe:
    pass


@MODEL_REGISTRY.register()
class TwoScheduleRecipe:
    streams = ("train_s", "train_t")


def section(size=13, kind="SizedDataset", **changes):
    options = {"type": kind, "name": "n", "phase": "train", "size": size, "scale": 2, "gt_size": 16}
    return options | {"batch_size_per_gpu": 4, "num_worker_per_gpu": 0} | changes


def streams(recipe="OneScheduleRecipe", rank=0, world=1, num_gpu=0, **datasets):
    run = {"num_gpu": num_gpu, "dist": world > 1, "rank": rank, "world_size": world, "manual_seed": 3, "train": {}}
    return build_streams({"model_type": recipe, "datasets": datasets, **run})


def one(**changes):
    (stream,) = streams(train=section(**{**SMALL, **changes}))
    return stream


def draw(stream, batches):
    """(iteration, epoch, position, batch, patch), and what was drawn, of the next batches."""
    drawn = []
    for _ in range(batches):
        batch = stream.next()
        count, _, side, _ = batch["gt"].shape
        place = (stream.iteration, stream.epoch, stream.position, count, side)
        drawn.append((place, batch["i"].tolist(), batch["draw"].tolist()))
    return drawn


# The schedule


def test_the_stages_are_the_published_ones():
    """Lengths, not boundaries; the iteration after the last one of a stage is the first of the next."""
    schedule = PatchSchedule.of(ProgressiveOptions.of(RESTORMER), 8)
    ends = [0, 92000, 156000, 204000, 240000, 276000, 300000]
    for index, (size, batch) in enumerate(zip(RESTORMER["gt_sizes"], RESTORMER["mini_batch_sizes"])):
        for iteration in (ends[index] + 1, ends[index + 1]):
            assert schedule.at(iteration) == Stage(ends[index] + 1, size, batch)
    assert schedule.at(10**9) == Stage(276001, 384, 1), "the last stage lasts to the end"


def test_without_lists_there_is_one_stage_and_no_size():
    schedule = PatchSchedule.of(ProgressiveOptions.of({"gt_size": 16}), 6)
    assert schedule.stages == (Stage(1, None, 6),) and not schedule.is_progressive
    assert schedule.epochs(13, 7) == 4, "two batches in each"


def test_the_most_demanding_iterations():
    schedule = PatchSchedule.of(ProgressiveOptions.of(RESTORMER), 8)
    # 4·192² = 147456 pixels, as many as 1·384²; the first of them is taken. 8·128² = 2·256² = 131072
    assert schedule.demanding(1, 300000) == [1, 156001, 276001]
    assert schedule.demanding(1, 276000) == [1, 156001, 240001]
    assert schedule.demanding(1, 100000) == [1, 92001], "160² is larger, and 8·128² more than 5·160²"
    assert schedule.demanding(210000, 300000) == [210000, 276001]
    assert schedule.demanding(290000, 300000) == [290000]
    assert PatchSchedule([Stage(1, None, 4)]).demanding(7, 9) == [7]


# Batches


def test_batches_and_epochs_are_those_computed_by_hand():
    stream = one()
    assert [place for place, *_ in draw(stream, 9)] == BY_HAND
    assert stream.schedule.epochs(13, 9) == 3 and stream.schedule.epochs(13, 8) == 2
    assert len(stream.loader) == 6, "an epoch that starts with iteration 10 has 2 each"
    assert len(one().loader) == 3


def test_an_epoch_draws_no_sample_twice():
    drawn = draw(one(), 9)
    for epoch in (0, 1):
        indices = [i for place, indices, _ in drawn for i in indices if place[1] == epoch]
        assert len(indices) == len(set(indices)) == 12


@pytest.mark.parametrize("consumed", range(9))
def test_a_stream_goes_on_where_another_has_stopped(consumed):
    """In mid-stage, on the boundary of a stage, in mid-epoch and at its end."""
    expected = draw(one(), 9)[consumed:]
    _, epoch, position, *_ = BY_HAND[consumed - 1] if consumed else (0, 0, 0)
    other = one()
    other.start_at(epoch, position, consumed)
    assert draw(other, 9 - consumed) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"num_worker_per_gpu": 2},
        {"num_worker_per_gpu": 2, "persistent_workers": False},
        {"num_worker_per_gpu": 1, "prefetch_mode": "cpu", "num_prefetch_queue": 3},
    ],
)
def test_workers_and_prefetching_change_nothing(changes):
    assert draw(one(**changes), 9) == draw(one(), 9)


def test_a_sample_draws_the_same_numbers_in_any_batch():
    """Its seed depends on its place in the epoch, which no schedule changes."""
    plain = one(gt_sizes=None, mini_batch_sizes=None, iters=None, batch_size_per_gpu=1)
    numbers = [value for _, _, (value,) in draw(plain, 26)]
    drawn = draw(one(), 9)
    assert [value for *_, values in drawn[:3] for value in values] == numbers[:12]
    assert [value for *_, values in drawn[3:8] for value in values] == numbers[13:25]


def test_ranks_share_an_epoch():
    ranks = [streams(rank=rank, world=2, train=section(26, **SMALL))[0] for rank in (0, 1)]
    drawn = [draw(stream, 9) for stream in ranks]
    assert [place for place, *_ in drawn[0]] == [place for place, *_ in drawn[1]] == BY_HAND
    assert len({i for one_rank in drawn for _, indices, _ in one_rank[:3] for i in indices}) == 24


def test_batches_are_multiplied_by_the_gpus_of_a_process():
    schedule = PatchSchedule.of(ProgressiveOptions.of(SMALL), 8, 2)
    assert [stage.batch_size for stage in schedule.stages] == [8, 6, 4]


def test_each_stream_has_its_own_schedule():
    s, t = streams("TwoScheduleRecipe", train_s=section(**SMALL), train_t=section(batch_size_per_gpu=5))
    for place in BY_HAND:
        assert draw(s, 1)[0][0] == place
        assert draw(t, 1)[0][0][3:] == (5, 16)


def test_a_change_is_logged(caplog):
    caplog.set_level(logging.INFO, "basicsr")
    logging.getLogger("basicsr").addHandler(caplog.handler)
    draw(one(), 7)
    stream = one()
    stream.start_at(1, 3, 4)
    draw(stream, 1)
    logging.getLogger("basicsr").removeHandler(caplog.handler)
    lines = list(dict.fromkeys(record.message for record in caplog.records if record.message.startswith("iter")))
    assert lines == [
        "iter 1: patch 8, batch 4",
        "iter 4: patch 12, batch 3",
        "iter 6: patch 16, batch 2",
        "iter 5: patch 12, batch 3",
    ]


def test_first_samples_are_those_of_the_next_batch_and_leave_the_stream_where_it_is():
    stream = one()
    first = stream.first_samples(2)
    assert first["gt"].shape[-1] == 8
    assert stream.first_samples(1, 6)["gt"].shape[-1] == 16
    drawn = draw(stream, 9)
    assert first["i"].tolist() == drawn[0][1][:2] and first["draw"].tolist() == drawn[0][2][:2]
    assert [place for place, *_ in drawn] == BY_HAND


# Datasets


def test_an_index_keeps_its_size_on_its_way_to_a_worker():
    index = pickle.loads(pickle.dumps(SampleIndex(5, 1, 7).with_gt_size(12)))
    assert (index, index.epoch, index.position, index.gt_size) == (5, 1, 7, 12)
    assert gt_size_of(index, 16) == 12 and gt_size_of(5, 16) == gt_size_of(SampleIndex(5, 1, 7), 16) == 16
    other = same_patch(index, 3)
    assert (other, gt_size_of(other, 16)) == (3, 12)
    assert type(same_patch(5, 3)) is int


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("IgnorantDataset", "IgnorantDataset gives 16×16"),
        ("IgnorantLQDataset", "IgnorantLQDataset gives 16×16"),
        ("NoImagesDataset", "the batches of NoImagesDataset hold no gt and no lq"),
    ],
)
def test_a_dataset_that_knows_of_no_schedule_is_refused(kind, found):
    for read in (lambda stream: stream.first_samples(1), lambda stream: stream.next()):
        with pytest.raises(
            ValueError, match=rf"datasets\.train: gt_sizes asks for patches of 8×8 .*{found}.*gt_size_of"
        ):
            read(one(kind=kind))
    (stream,) = streams(train=section(kind=kind))
    assert stream.next() is not None, "and runs as ever without one"


def test_a_batch_larger_than_an_epoch_is_refused():
    with pytest.raises(
        ValueError, match="3 samples per process, fewer than the batch of 4.*enlarge_ratio to at least 2"
    ):
        one(size=3)
    assert draw(one(size=3, dataset_enlarge_ratio=2), 1)


def test_a_schedule_needs_an_order_that_it_can_follow():
    options = section(**SMALL)
    dataset = build_dataset(options)
    with pytest.raises(ValueError, match="need the order of an EnlargedSampler"):
        build_dataloader(dataset, options)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three pairs at scale 2 in folders, databases and decoded storage."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for role, side in (("lq", 20), ("gt", 40)):
        (root / role).mkdir()
        for name in "abc":
            image = rng.integers(0, 256, (side, side + side // 10, 3), dtype=np.uint8)
            cv2.imwrite(str(root / role / f"{name}.png"), image)
        make_lmdb_from_imgs(str(root / role), str(root / f"{role}.lmdb"), ["a.png", "b.png", "c.png"], list("abc"))
        create_memmap(str(root / role), str(root / f"{role}.memmap"))
    return root


def paired(root, backend="disk", **changes):
    suffix = "" if backend == "disk" else f".{backend}"
    return {
        "name": "n",
        "type": "PairedImageDataset",
        "phase": "train",
        "scale": 2,
        "dataroot_gt": f"{root}/gt{suffix}",
        "dataroot_lq": f"{root}/lq{suffix}",
        "io_backend": {"type": backend},
        "use_hflip": True,
        "use_rot": True,
        "gt_size": 32,
        "batch_size_per_gpu": 3,
        "num_worker_per_gpu": 0,
        **changes,
    }


@pytest.mark.parametrize("backend", ["disk", "lmdb", "memmap"])
@pytest.mark.parametrize("whole_batches", [True, False])
def test_a_paired_sample_is_that_of_a_dataset_with_this_gt_size(pairs, backend, whole_batches):
    """Of every backend, read one by one and as a batch."""
    scheduled = SeededDataset(build_dataset(paired(pairs, backend)), 5, whole_batches=whole_batches)
    for side in (8, 20, 32):
        plain = SeededDataset(build_dataset(paired(pairs, gt_size=side)), 5)
        indices = [SampleIndex(i, 2, i + 4) for i in range(3)]
        expected = [plain[index] for index in indices]
        found = scheduled.__getitems__([index.with_gt_size(side) for index in indices])
        for key, length in (("gt", side), ("lq", side // 2)):
            rows = found[key] if whole_batches else torch.stack([sample[key] for sample in found])
            assert rows.shape == (3, 3, length, length)
            assert torch.equal(rows, torch.stack([sample[key] for sample in expected]))


def test_an_image_smaller_than_a_patch_is_named(pairs):
    dataset = build_dataset(paired(pairs))
    with pytest.raises(
        ValueError, match=r"a\.png: GT of 40×44 pixels .* smaller than a crop of 42×42; .*pad_small: true"
    ):
        dataset[SampleIndex(0, 0, 0, 42)]


def test_small_images_are_extended_by_reflection_where_that_is_asked_for(pairs):
    """To the right and at the bottom, with the edge repeated: NumPy calls it symmetric."""
    options = {"pad_small": True, "use_hflip": False, "use_rot": False, "gt_size": 60}
    sample = build_dataset(paired(pairs, **options))[1]
    for role, side in (("gt", 60), ("lq", 30)):
        image = cv2.imread(str(pairs / role / "b.png"))[..., ::-1].astype(np.float32) / np.float32(255)
        rows, columns = side - image.shape[0], side - image.shape[1]
        expected = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="symmetric")
        np.testing.assert_array_equal(sample[role].permute(1, 2, 0).numpy(), expected)
    large = build_dataset(paired(pairs, gt_size=32)), build_dataset(paired(pairs, gt_size=32, pad_small=True))
    drawn = [SeededDataset(dataset, 1)[SampleIndex(2, 0, 0)]["gt"] for dataset in large]
    assert torch.equal(*drawn), "and large ones are left as they are"


def test_extending_hides_no_pair_of_other_sizes(pairs, tmp_path):
    folder = tmp_path / "lq"
    folder.mkdir()
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((20, 20, 3), np.uint8))
    dataset = build_dataset(paired(pairs, pad_small=True, gt_size=80, dataroot_lq=str(folder)))
    with pytest.raises(ValueError, match="GT is 40×44 and LQ 20×20"):
        dataset[0]


def test_the_sampler_alone_is_as_before():
    sampler = EnlargedSampler(range(5), 1, 0)
    assert all(index.gt_size is None for index in sampler)


@pytest.mark.parametrize(
    ("name", "size"), [("a.png", (20, 30)), ("a.jpg", (20, 30)), ("a.bmp", None), ("no.png", None)]
)
def test_sizes_are_read_from_headers(tmp_path, name, size):
    if name[0] == "a":
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
    assert size_in_header(str(tmp_path / name)) == size
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0")
    assert size_in_header(str(tmp_path / "cut.png")) is None
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert size_in_header(str(tmp_path / "cut.jpg")) is None
    progressive = cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    comment = b"\xff\xfe\x00\x10" + b"\xff\xc0" * 7  # what looks like a frame within a segment is none
    (tmp_path / "b.jpg").write_bytes(progressive[:2] + comment + progressive[2:])
    assert size_in_header(str(tmp_path / "b.jpg")) == (20, 30)


def test_images_smaller_than_the_largest_patch_are_refused_when_the_dataset_is_built(pairs):
    sizes = {"gt_sizes": [8, 42], "mini_batch_sizes": [1, 1], "iters": [1, 1], "gt_size": 42}
    for backend in ("disk", "memmap"):
        with pytest.raises(ValueError, match=r"3 of 3 GT images are smaller .* 42×42; .*a\.png, 40×44 pixels"):
            build_dataset(paired(pairs, backend, **sizes))
    assert build_dataset(paired(pairs, **sizes, pad_small=True))
    assert build_dataset(paired(pairs, "lmdb", **sizes)), "its sizes are seen when it is read"
