"""DegradedImageDataset: what it reads, what depends on which seed, and which options it refuses."""

import math
import random
import textwrap

import cv2
import numpy as np
import pytest
import torch

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.memmap.writer import create_memmap
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.options import read_options
from basicsr.utils.options.errors import OptionError

from ..helpers import smooth_image

NOISE = {"type": "gaussian_noise", "sigma": 25}
EVERYTHING = [
    {"type": "motion_blur", "length": [3, 9]},
    {"type": "haze"},
    {"type": "rain"},
    {"type": "snow"},
    {"type": "gaussian_noise", "sigma": [1, 10], "gray": 0.5},
    {"type": "jpeg", "quality": [30, 90]},
]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A folder of four images of odd sizes."""
    folder = tmp_path_factory.mktemp("clean")
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), smooth_image(number, 33 + 2 * number, 41)[..., ::-1])
    return folder


def options(folder, phase="test", degradations=(NOISE,), **changes):
    training = {"gt_size": 16, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0, "geometric_augs": True}
    return {
        "name": "degraded",
        "type": "DegradedImageDataset",
        "phase": phase,
        "dataroot_gt": str(folder),
        "degradations": [dict(degradation) for degradation in degradations],
        **(training if phase == "train" else {}),
        **changes,
    }


def batches(opt, workers=0, seed=3, epochs=1, consumed=0):
    dataset = build_dataset(opt)
    sampler = EnlargedSampler(dataset, 1, 0, ratio=2, seed=seed)
    loader = build_dataloader(dataset, opt | {"num_worker_per_gpu": workers}, sampler=sampler, seed=seed)
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if epoch == epochs - 1:
            sampler.set_position(consumed)
        found += list(loader)
    return [(batch["lq"], batch["gt"], batch["gt_path"]) for batch in found]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2] == b[2] for a, b in zip(one, other)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_gt_is_the_image_and_lq_its_degraded_copy(clean, channels):
    sample = build_dataset(options(clean, channels=channels, noise_seed=0))[2]
    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    image = cv2.imread(str(clean / "2.png"), flag).reshape(37, 41, channels)[..., ::-1].astype(np.float32) / 255
    np.testing.assert_array_equal(sample["gt"].permute(1, 2, 0).numpy(), image)
    noisy = image + np.random.RandomState(0).normal(0, 25 / 255, image.shape)
    np.testing.assert_array_equal(sample["lq"].permute(1, 2, 0).numpy(), noisy.astype(np.float32))
    assert sample["lq"].min() < 0 or sample["lq"].max() > 1 or channels == 1, "unclipped"
    assert sample["lq_path"] == sample["gt_path"] == str(clean / "2.png")


def test_normalisation_is_that_of_both(clean):
    plain = build_dataset(options(clean))[0]
    changed = build_dataset(options(clean, mean=[0.5, 0.4, 0.3], std=[0.5, 1.0, 2.0]))[0]
    for key in ("lq", "gt"):
        expected = [(plain[key][c] - m) / s for c, (m, s) in enumerate([(0.5, 0.5), (0.4, 1.0), (0.3, 2.0)])]
        torch.testing.assert_close(changed[key], torch.stack(expected))


def test_degradations_are_applied_in_their_order(clean):
    blur, noise = {"type": "motion_blur", "length": 15, "shake": 0}, {"type": "gaussian_noise", "sigma": 30}
    rough, smooth = (
        build_dataset(options(clean, degradations=order))[0]["lq"] for order in ([blur, noise], [noise, blur])
    )
    steps = [float(image.diff(dim=-1).std()) for image in (rough, smooth)]
    assert steps[0] > 2 * steps[1], "the blur removes noise that came before it"


def test_storage_does_not_matter(clean, tmp_path):
    names = [f"{number}.png" for number in range(4)]
    make_lmdb_from_imgs(str(clean), str(tmp_path / "c.lmdb"), names, [name[:-4] for name in names])
    assert create_memmap(str(clean), str(tmp_path / "c.memmap")) == []
    for phase in ("train", "test"):
        found = []
        for kind, root in (("disk", clean), ("lmdb", tmp_path / "c.lmdb"), ("memmap", tmp_path / "c.memmap")):
            opt = options(root, phase, EVERYTHING, io_backend={"type": kind}, channels=1)
            random.seed(5)
            found.append(build_dataset(opt)[1])
        assert all(torch.equal(one["lq"], found[0]["lq"]) and torch.equal(one["gt"], found[0]["gt"]) for one in found)


def test_training_samples_do_not_depend_on_workers(clean):
    opt = options(clean, "train", EVERYTHING)
    whole = batches(opt)
    assert len(whole) == 4 and whole[0][0].shape == (2, 3, 16, 16)
    assert same(batches(opt, workers=2), whole)


def test_training_samples_depend_on_seed_epoch_and_position_alone(clean):
    opt = options(clean, "train", [NOISE])
    two_epochs = batches(opt, epochs=2)
    assert same(two_epochs[:4], batches(opt))
    assert same(batches(opt, epochs=2, consumed=4)[4:], two_epochs[6:]), "resumed in the middle of an epoch"
    noise = [lq - gt for lq, gt, _ in two_epochs]
    noise += [lq - gt for lq, gt, _ in batches(opt, seed=4)]
    samples = [sample for batch in noise for sample in batch]
    assert not any(torch.allclose(a, b) for i, a in enumerate(samples) for b in samples[:i]), "no noise comes twice"


def test_an_evaluation_image_is_the_same_every_time(clean):
    opt = options(clean, "val", EVERYTHING)
    dataset = build_dataset(opt)
    first = [dataset[index]["lq"] for index in range(4)]
    random.seed(99)
    np.random.seed(99)
    again = build_dataset(opt)
    loaded = [batch["lq"][0] for batch in build_dataloader(again, opt, seed=17)]
    assert all(torch.equal(again[i]["lq"], first[i]) and torch.equal(loaded[i], first[i]) for i in (3, 1, 0, 2))


def test_images_have_noise_of_their_own_unless_it_is_seeded_for_each(clean):
    own, seeded = (build_dataset(options(clean, **changes)) for changes in ({}, {"noise_seed": 7}))
    for dataset, alike in ((own, False), (seeded, True)):
        noise = [(dataset[i]["lq"] - dataset[i]["gt"])[:, :33] for i in (0, 1)]
        assert torch.allclose(noise[0].flatten()[:41], noise[1].flatten()[:41], atol=1e-6) is alike


def test_all_eight_symmetries_occur(clean, tmp_path):
    image = np.arange(9 * 9 * 3, dtype=np.uint8).reshape(9, 9, 3)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    dataset = build_dataset(options(tmp_path, "train", gt_size=9))
    counts: dict[bytes, int] = {}
    for _ in range(1600):
        key = dataset[0]["gt"].numpy().tobytes()
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 8
    assert all(abs(count - 200) < 5 * math.sqrt(1600 / 8 * 7 / 8) for count in counts.values())


def test_what_cannot_be_built(clean):
    with pytest.raises(ValueError, match="the scale must be 1, not 2"):
        build_dataset(options(clean, scale=2))
    with pytest.raises(ValueError, match="degraded: training needs gt_size"):
        build_dataset(options(clean, "train", gt_size=None))
    with pytest.raises(ValueError, match="noise_seed is for validation and test"):
        build_dataset(options(clean, "train", noise_seed=0))
    with pytest.raises(ValueError, match=r"degradations\.1\.sigma: must be a number ≥ 0 and ≤ 255 or .*, not -1"):
        build_dataset(options(clean, degradations=[NOISE, {"type": "gaussian_noise", "sigma": -1}]))
    with pytest.raises(ValueError, match=r"clean.*0\.png: GT of 33×41 pixels .* smaller than a crop of 64×64"):
        build_dataset(options(clean, "train", gt_size=64))[0]


@pytest.mark.parametrize(
    ("degradation", "message"),
    [
        ("{type: gaussian_noise, sigma: 256}", r"sigma \(.*yml:\d+\): must be a number ≥ 0 and ≤ 255 or a list of 2"),
        ("{type: gaussian_noise, sigma: [0, 300]}", r"sigma \(.*must be a number ≥ 0 and ≤ 255 or a list of 2 numbers"),
        ("{type: gaussian_noise, sigma: [50, 10]}", r"sigma \(.*a range goes from low to high, such as \[10, 50\]"),
        ("{type: gaussian_noise}", r"the key 'sigma' is missing"),
        ("{type: jpeg, quality: 0}", r"quality \(.*must be an integer ≥ 1 and ≤ 100"),
        ("{type: jpeg, qualty: 5}", r"qualty \(.*did you mean 'quality'"),
        ("{type: gausian_noise, sigma: 5}", r"Did you mean 'gaussian_noise'"),
        ("{type: rain, angle: 100}", r"angle \(.*must be a number ≥ -90 and ≤ 90"),
    ],
)
def test_refused_options_are_named_with_their_place(tmp_path, degradation, message):
    file = tmp_path / "x.yml"
    file.write_text(
        textwrap.dedent(f"""\
        name: x
        model_type: SRModel
        scale: 1
        datasets:
          test_1:
            name: n
            type: DegradedImageDataset
            dataroot_gt: somewhere
            degradations:
              - {{type: haze}}
              - {degradation}
        network_g: {{type: DnCNN, in_nc: 3, out_nc: 3}}
        """)
    )
    with pytest.raises(OptionError, match=r"datasets\.test_1\.degradations\.1.*" + message):
        read_options(file)
