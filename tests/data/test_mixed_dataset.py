"""MixedDataset: shares, seeds, resuming, ranks, and which options it refuses."""

import copy
import math
import random

import cv2
import pytest
import torch
import yaml

from basicsr.data import build_dataset
from basicsr.data.stream import build_streams
from basicsr.utils.options import read_options
from basicsr.utils.options.errors import OptionError

from ..helpers import smooth_image

NOISE = {"type": "gaussian_noise", "sigma": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """clean/ with five images, and pairs of three others in gt/ and lq/."""
    root = tmp_path_factory.mktemp("mixed")
    for place, count in (("clean", 5), ("gt", 3), ("lq", 3)):
        (root / place).mkdir()
        for number in range(count):
            cv2.imwrite(str(root / place / f"{number}.png"), smooth_image(number, 24, 26))
    return root


def mixture(root, noise=3.0, pairs=1.0, **changes):
    return {
        "name": "mix",
        "type": "MixedDataset",
        "phase": "train",
        "scale": 1,
        "gt_size": 8,
        "batch_size_per_gpu": 4,
        "num_worker_per_gpu": 0,
        "sets": {
            "noise": {
                "type": "DegradedImageDataset",
                "dataroot_gt": str(root / "clean"),
                "degradations": [NOISE],
                "geometric_augs": True,
                "weight": noise,
            },
            "pairs": {
                "type": "PairedImageDataset",
                "dataroot_gt": str(root / "gt"),
                "dataroot_lq": str(root / "lq"),
                "weight": pairs,
            },
        },
        **changes,
    }


def stream(opt, rank=0, world=1, seed=3):
    run = {"num_gpu": 0, "dist": world > 1, "rank": rank, "world_size": world, "manual_seed": seed}
    (found,) = build_streams({"model_type": "SRModel", "datasets": {"train": opt}, **run})
    return found


def take(source, count):
    return [source.next() for _ in range(count)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a["lq"], b["lq"]) and torch.equal(a["gt"], b["gt"]) and a["gt_path"] == b["gt_path"]
        for a, b in zip(one, other)
    )


@pytest.mark.parametrize(("noise", "pairs"), [(3, 1), (0.02, 0.08), (1, 1)])
def test_weights_are_proportions(folder, noise, pairs):
    """5 standard deviations of a binomial; and each image of a set is as likely as another."""
    dataset = build_dataset(mixture(folder, noise, pairs))
    random.seed(0)
    count, paths = 3000, []
    for _ in range(count):
        paths.append(dataset[0]["gt_path"])
    share = noise / (noise + pairs)
    found = sum("clean" in path for path in paths)
    assert abs(found - share * count) < 5 * math.sqrt(count * share * (1 - share))
    for name, number, images in (("/clean/", found, 5), ("/gt/", count - found, 3)):
        for image in range(images):
            times = sum(path.endswith(f"{name}{image}.png") for path in paths)
            assert abs(times - number / images) < 5 * math.sqrt(number / images)


def test_an_epoch_has_as_many_samples_as_the_sets_have_images(folder):
    dataset = build_dataset(mixture(folder))
    assert len(dataset) == 8 and list(dataset.sets) == ["noise", "pairs"]


def test_both_sets_give_crops_of_the_mixtures_size(folder):
    batches = take(stream(mixture(folder)), 6)
    assert all(batch["lq"].shape == batch["gt"].shape == (4, 3, 8, 8) for batch in batches)
    paths = {path.split("/")[-2] for batch in batches for path in batch["gt_path"]}
    assert paths == {"clean", "gt"}


def test_samples_do_not_depend_on_workers(folder):
    opt = mixture(folder)
    assert same(take(stream(opt | {"num_worker_per_gpu": 2}), 5), take(stream(opt), 5))


def test_samples_depend_on_seed_epoch_and_position(folder):
    opt = mixture(folder)
    expected = take(stream(opt), 6)
    assert same(take(stream(opt), 6), expected)
    assert not same(take(stream(opt, seed=4), 6), expected)
    assert not same(expected[:2], expected[2:4]), "another epoch"


@pytest.mark.parametrize("consumed", [0, 1, 2, 3, 5])
def test_a_resumed_stream_goes_on_exactly(folder, consumed):
    opt = mixture(folder)
    whole, first, second = stream(opt), stream(opt), stream(opt)
    expected = take(whole, 7)[consumed:]
    take(first, consumed)
    second.start_at(first.epoch, first.position)
    assert same(take(second, 7 - consumed), expected)


def test_ranks_together_draw_what_one_process_draws(folder):
    opt = mixture(folder, batch_size_per_gpu=2)
    ranks = [take(stream(opt, rank, 2), 2) for rank in (0, 1)]
    (one,) = take(stream(opt | {"batch_size_per_gpu": 8}), 1)
    shared = [{key: [r[i][key][j] for i in (0, 1) for j in (0, 1)] for key in ("gt_path", "lq")} for r in ranks]
    assert one["gt_path"][0::2] == shared[0]["gt_path"] and one["gt_path"][1::2] == shared[1]["gt_path"]
    assert torch.equal(one["lq"][0::2], torch.stack(shared[0]["lq"]))
    assert torch.equal(one["lq"][1::2], torch.stack(shared[1]["lq"]))


@pytest.mark.parametrize("workers", [0, 2])
def test_all_sets_follow_the_schedule_of_patch_sizes(folder, workers):
    schedule = {"gt_sizes": [6, 8], "mini_batch_sizes": [4, 2], "iters": [3, 3]}
    batches = take(stream(mixture(folder, num_worker_per_gpu=workers, **schedule)), 6)
    assert [tuple(batch["gt"].shape) for batch in batches] == [(4, 3, 6, 6)] * 3 + [(2, 3, 8, 8)] * 3
    assert {path.split("/")[-2] for batch in batches[:3] for path in batch["gt_path"]} == {"clean", "gt"}


def test_it_is_for_training(folder):
    with pytest.raises(ValueError, match="MixedDataset is for training; validate and test each set"):
        build_dataset(mixture(folder, phase="val"))


def test_what_is_wrong_in_a_set_is_told_with_its_name(folder):
    opt = mixture(folder)
    opt["sets"]["pairs"]["dataroot_gt"] = str(folder / "none")
    with pytest.raises(FileNotFoundError, match="sets.pairs: the folder .*none does not exist"):
        build_dataset(opt)


def put(opt, path, value):
    *sections, last = path.split(".")
    for section in sections:
        opt = opt[section]
    if value is None:
        del opt[last]
    else:
        opt[last] = value


def run_options(root):
    train = {key: value for key, value in mixture(root).items() if key not in ("phase", "scale")}
    return {
        "name": "x",
        "model_type": "SRModel",
        "scale": 1,
        "datasets": {"train": copy.deepcopy(train)},
        "network_g": {"type": "DnCNN", "in_nc": 3, "out_nc": 3},
        "train": {
            "total_iter": 10,
            "optim_g": {"type": "Adam", "lr": 1e-4},
            "scheduler": {"type": "MultiStepLR", "milestones": [5]},
            "pixel_opt": {"type": "L1Loss"},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 5},
    }


def test_valid_options_pass_without_notices(folder, tmp_path):
    file = tmp_path / "x.yml"
    file.write_text(yaml.safe_dump(run_options(folder)))
    opt, notices = read_options(file, check_files=True)
    assert notices == [] and list(opt["datasets"]["train"]["sets"]) == ["noise", "pairs"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sets.noise.weight", 0, r"sets\.noise\.weight \(.*yml:\d+\): must be a number > 0, not 0"),
        ("sets.noise.weight", -1, r"sets\.noise\.weight \(.*must be a number > 0, not -1"),
        ("sets.pairs.weight", None, r"sets\.pairs \(.*the key 'weight' is missing"),
        ("sets", {}, r"sets \(.*is empty"),
        ("sets.noise.gt_size", 8, r"sets\.noise\.gt_size \(.*is the same for all sets; write it beside `sets`"),
        ("sets.pairs.batch_size_per_gpu", 2, r"sets\.pairs\.batch_size_per_gpu \(.*write it beside `sets`"),
        (
            "sets.noise.degradations",
            [{"type": "gaussian_noise", "sigma": 300}],
            r"noise\.degradations\.0\.sigma \(.*≤ 255",
        ),
        ("sets.pairs.type", "PairedImageDatset", r"sets\.pairs\.type \(.*Did you mean 'PairedImageDataset'"),
        ("sets.pairs.type", "MixedDataset", r"sets\.pairs\.type \(.*a mixture cannot be in a mixture"),
        ("sets.pairs.datarot", "x", r"sets\.pairs\.datarot \(.*unknown key"),
        ("sets.pairs.filename_tmpl", "x4", r"sets\.pairs\.filename_tmpl \(.*must hold \{\} once"),
        ("sets.pairs.dataroot_gt", "nowhere", r"sets\.pairs\.dataroot_gt \(.*nowhere does not exist"),
        ("gt_size", None, r"datasets\.train \(.*a training set must have the key 'gt_size'"),
        ("weight", 1, r"datasets\.train\.weight \(.*unknown key"),
    ],
)
def test_refused_options_are_named_with_their_place(folder, tmp_path, path, value, message):
    opt = run_options(folder)
    put(opt["datasets"]["train"], path, value)
    file = tmp_path / "x.yml"
    file.write_text(yaml.safe_dump(opt))
    with pytest.raises(OptionError, match=message):
        read_options(file, check_files=True)
