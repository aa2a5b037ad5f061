"""What is written of a public data set: pairs, patches, restarts; always on small images that the tests write."""

import errno
import hashlib
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from basicsr.data.layouts import writer
from basicsr.data.layouts.prepare import prepare_set
from basicsr.data.layouts.sets import SETS
from basicsr.data.layouts.sidd_blocks import CLEAN, NOISY
from basicsr.data.paired_image_dataset import PairedImageDataset

from ..helpers import run_forked


def _image(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _save(root, sizes):
    """Image files, each of its own pixels; returns path → pixels as read back."""
    for seed, (file, size) in enumerate(sizes.items()):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / file), _image(*size, seed))
    return {file: cv2.imread(str(root / file)) for file in sizes}


def _prepare(name, source, target, **options):
    return list(prepare_set(SETS[name], str(source), str(target), **options))


def _dataset(roots, storage="disk"):
    options = {"name": "x", "type": "PairedImageDataset", "scale": 1, "phase": "val", "io_backend": {"type": storage}}
    return PairedImageDataset({**options, "dataroot_lq": roots["lq"], "dataroot_gt": roots["gt"]})


def _state(folder):
    """Every file below a folder: content and time of the last change."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


def _contents(folder):
    return {name: content for name, (content, _) in _state(folder).items()}


@pytest.fixture
def gopro(tmp_path):
    """Two training scenes and a test scene; images of different sizes, one smaller than a patch of 16."""
    sizes = {"train/A/{}/1.png": (37, 29), "train/A/{}/2.png": (16, 16), "train/B/{}/1.png": (9, 40)}
    sizes["test/C/{}/1.png"] = (30, 20)
    source = tmp_path / "GOPRO_Large"
    images = _save(source, {name.format(kind): size for name, size in sizes.items() for kind in ("blur", "sharp")})
    return source, images


def test_patches_cover_every_pixel(gopro, tmp_path):
    source, images = gopro
    before = _state(source)
    (train, test) = _prepare("GoPro", source, tmp_path / "out", patch_size=16, overlap=4)
    assert _state(source) == before
    # Starts at distance 12, and a last one flush with the border: 37 → 0, 12, 21; 29 → 0, 12, 13; 40 → 0, 12, 24.
    corners = {
        "A-000": [],
        "A-1": [(top, left) for top in (0, 12, 21) for left in (0, 12, 13)],
        "A-2": [(0, 0)],
        "B-1": [(0, 0), (0, 12), (0, 24)],
    }
    assert (train.part, train.pairs, train.images, train.failures) == ("train", 3, 13, [])
    assert (test.part, test.pairs, test.images, test.cut.patch_size) == ("test", 1, 1, 0)
    for role, kind in (("lq", "blur"), ("gt", "sharp")):
        folder = tmp_path / "out" / "train" / role
        assert len(list(folder.glob("*.png"))) == 13
        for name in ("A-1", "A-2", "B-1"):
            original = images[f"train/{name[0]}/{kind}/{name[2]}.png"]
            rebuilt = np.zeros_like(original)
            covered = np.zeros(original.shape[:2], bool)
            for number, (top, left) in enumerate(corners[name], 1):
                patch = cv2.imread(str(folder / f"{name}_s{number:03d}.png"))
                assert patch.shape[:2] == (min(16, original.shape[0]), min(16, original.shape[1]))
                rebuilt[top : top + 16, left : left + 16] = patch
                covered[top : top + 16, left : left + 16] = True
            assert covered.all()
            np.testing.assert_array_equal(rebuilt, original)
        assert train.nbytes[role] == sum(path.stat().st_size for path in folder.iterdir())


def test_whole_images_keep_their_bytes(gopro, tmp_path):
    source, _ = gopro
    _prepare("GoPro", source, tmp_path / "out", patch_size=0)
    for role, kind in (("lq", "blur"), ("gt", "sharp")):
        for part, scene, number in (("train", "A", 1), ("train", "B", 1), ("test", "C", 1)):
            made = tmp_path / "out" / part / role / f"{scene}-{number}.png"
            original = source / part / scene / kind / f"{number}.png"
            assert made.read_bytes() == original.read_bytes()
            assert not made.samefile(original), "what is done to the copy would be done to the source"


def test_defaults_are_the_published_ones():
    sizes = {name: (each.patch_size, each.overlap) for name, each in SETS.items() if each.patch_size}
    assert sizes == {"GoPro": (512, 256), "SIDD": (512, 128)}


def test_default_overlap(gopro, tmp_path):
    source, _ = gopro
    train, _ = _prepare("GoPro", source, tmp_path / "a", patch_size=16)
    assert train.cut.overlap == 8
    train, _ = _prepare("GoPro", source, tmp_path / "b")
    assert (train.cut.patch_size, train.cut.overlap, train.images) == (512, 256, 3)


@pytest.mark.parametrize("size, overlap", [(16, 16), (-1, 0), (16, -1), (0, 4)])
def test_sizes_that_make_no_sense(gopro, tmp_path, size, overlap):
    with pytest.raises(ValueError, match=f"patch size {size} and overlap {overlap}"):
        _prepare("GoPro", gopro[0], tmp_path / "out", patch_size=size, overlap=overlap)
    assert not (tmp_path / "out").exists()


def test_the_dataset_reads_it(gopro, tmp_path):
    source, images = gopro
    made = _prepare("GoPro", source, tmp_path / "out", patch_size=16, overlap=4)
    for part in made:
        data = _dataset(part.roots)
        assert len(data) == part.images
        for item in (data[index] for index in range(len(data))):
            assert os.path.basename(item["lq_path"]) == os.path.basename(item["gt_path"])
    rgb = item["gt"].mul(255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(rgb[..., ::-1], images["test/C/sharp/1.png"])


@pytest.mark.parametrize("storage", ["lmdb", "memmap"])
def test_storage(gopro, tmp_path, storage):
    options = {"patch_size": 16, "overlap": 4, "storage": storage}
    made = _prepare("GoPro", gopro[0], tmp_path / "out", **options)
    assert made[0].roots == {role: str(tmp_path / "out" / "train" / f"{role}.{storage}") for role in ("lq", "gt")}
    data = _dataset(made[0].roots, storage)
    files = _dataset({role: str(tmp_path / "out" / "train" / role) for role in ("lq", "gt")})
    assert len(data) == len(files) == 13
    for index in range(13):
        assert (data[index]["lq"] == files[index]["lq"]).all() and (data[index]["gt"] == files[index]["gt"]).all()
    before = _state(tmp_path / "out")
    _prepare("GoPro", gopro[0], tmp_path / "out", **options)
    assert _state(tmp_path / "out") == before


def test_several_processes_make_the_same(gopro, tmp_path):
    for workers in (1, 2):
        _prepare("GoPro", gopro[0], tmp_path / str(workers), patch_size=16, num_workers=workers)
    assert _contents(tmp_path / "1") == _contents(tmp_path / "2")


# Starting again


@pytest.mark.parametrize("patch_size", [0, 16])
def test_a_second_run_changes_nothing(gopro, tmp_path, patch_size):
    _prepare("GoPro", gopro[0], tmp_path / "out", patch_size=patch_size)
    before = _state(tmp_path / "out")
    made = _prepare("GoPro", gopro[0], tmp_path / "out", patch_size=patch_size)
    assert _state(tmp_path / "out") == before
    assert [part.failures for part in made] == [[], []]


def _killed_at(write, count, source, target, options):
    """Prepare, and kill this process in the middle of the ``count``-th file."""
    owner, calls = {"imwrite": writer, "copyfile": shutil}[write], []
    original = getattr(owner, write)

    def torn(*args):
        calls.append(args)
        if len(calls) == count:
            if write == "copyfile":
                Path(args[1]).write_bytes(Path(args[0]).read_bytes()[:20])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(owner, write, torn)
    _prepare("GoPro", source, target, **options)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
@pytest.mark.parametrize("write, patch_size", [("imwrite", 16), ("copyfile", 0)])
def test_killed_and_started_again(gopro, tmp_path, write, patch_size, count):
    options = {"patch_size": patch_size}
    _prepare("GoPro", gopro[0], tmp_path / "whole", **options)
    (process,) = run_forked(_killed_at, [(write, count, gopro[0], tmp_path / "out", options)])
    assert process.exitcode == -signal.SIGKILL
    assert _contents(tmp_path / "out").keys() != _contents(tmp_path / "whole").keys()
    _prepare("GoPro", gopro[0], tmp_path / "out", **options)
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole"), "also no file that was left unfinished"


def test_other_settings_are_refused(gopro, tmp_path):
    _prepare("GoPro", gopro[0], tmp_path / "out", patch_size=16)
    for options in ({"patch_size": 8}, {"patch_size": 16, "overlap": 2}, {"patch_size": 0}):
        with pytest.raises(ValueError, match="train was made with .*'patch_size': 16.* not with"):
            _prepare("GoPro", gopro[0], tmp_path / "out", **options)
    (tmp_path / "other" / "test").mkdir(parents=True)
    (tmp_path / "other" / "test" / "mine.png").touch()
    with pytest.raises(ValueError, match="test holds files of another origin"):
        _prepare("GoPro", gopro[0], tmp_path / "other", patch_size=16)


def test_images_of_another_source_are_named(gopro, tmp_path):
    source, _ = gopro
    _prepare("GoPro", source, tmp_path / "out", patch_size=0)
    for kind in ("blur", "sharp"):
        (source / "train" / "B" / kind / "1.png").unlink()
    train, test = _prepare("GoPro", source, tmp_path / "out", patch_size=0)
    folders = [f"{tmp_path}/out/train/{role}" for role in ("lq", "gt")]
    assert train.failures == [f"{folder}: not made from this source: B-1.png; remove them" for folder in folders]
    assert test.failures == []


@pytest.mark.parametrize("patch_size", [0, 16])
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_an_image_of_the_same_name_of_another_source_is_refused(gopro, tmp_path, is_interrupted, patch_size):
    """A GT of this source must not come to stand beside an LQ that was made from another."""
    source, _ = gopro
    _prepare("GoPro", source, tmp_path / "out", patch_size=patch_size)
    made = tmp_path / "out" / "train"
    if is_interrupted:
        next((made / "gt").glob("B-1*.png")).unlink()
    before = sorted(path.name for path in made.rglob("*"))
    height, width = cv2.imread(str(source / "train" / "B" / "blur" / "1.png")).shape[:2]
    for kind in ("blur", "sharp"):
        path = source / "train" / "B" / kind / "1.png"
        cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"train holds 1 pair made from other files .* the first is of .*/B/blur/1.png"
    ):
        _prepare("GoPro", source, tmp_path / "out", patch_size=patch_size)
    assert sorted(path.name for path in made.rglob("*")) == before


def test_pairs_may_be_added_to_what_is_there(gopro, tmp_path):
    source, _ = gopro
    _prepare("GoPro", source, tmp_path / "out", patch_size=0)
    for kind in ("blur", "sharp"):
        shutil.copy(source / "train" / "B" / kind / "1.png", source / "train" / "B" / kind / "9.png")
    train, _ = _prepare("GoPro", source, tmp_path / "out", patch_size=0)
    assert not train.failures and (tmp_path / "out" / "train" / "lq" / "B-9.png").exists()
    (tmp_path / "out" / "train" / ".sources.json").write_text("{")
    with pytest.raises(ValueError, match=r"\.sources\.json, what the images were made from, is damaged"):
        _prepare("GoPro", source, tmp_path / "out", patch_size=0)


@pytest.mark.parametrize("inside", ["", "out", "train/A/blur/out"])
def test_a_target_in_the_source_is_refused(gopro, tmp_path, inside):
    source, _ = gopro
    before = _state(source)
    (tmp_path / "link").symlink_to(source)
    for root in (source, tmp_path / "link"):
        with pytest.raises(ValueError, match="lies in the source .*, which is not written to"):
            _prepare("GoPro", source, root / inside)
    assert _state(source) == before


def test_a_target_beside_the_source_with_a_longer_name(gopro, tmp_path):
    assert len(_prepare("GoPro", gopro[0], tmp_path / "GOPRO_Large_prepared", patch_size=0)) == 2


# Images that cannot be used


def test_unusable_images_are_named_and_the_others_made(gopro, tmp_path):
    source, _ = gopro
    blurred = source / "train" / "A" / "blur" / "1.png"
    blurred.write_bytes(blurred.read_bytes()[:200])
    sharp = source / "train" / "B" / "sharp" / "1.png"
    cv2.imwrite(str(sharp), _image(9, 41, 0))
    (source / "test" / "C" / "sharp" / "1.png").write_bytes(b"bad")
    train, test = _prepare("GoPro", source, tmp_path / "out", patch_size=16, storage="lmdb")
    first, second = train.failures
    assert str(blurred) in first
    assert second == (
        f"{source}/train/B/blur/1.png is 9×40 pixels (height×width) and its GT {sharp} 9×41; they must be equal"
    )
    (third,) = test.failures
    assert "C/sharp/1.png" in third and third.endswith("(the GT of 1 images)")
    for role in ("lq", "gt"):
        assert [path.name for path in (tmp_path / "out" / "train" / role).iterdir()] == ["A-2_s001.png"]
    assert not list((tmp_path / "out").rglob("*.lmdb")), "it would lack images"
    assert train.roots["lq"] == str(tmp_path / "out" / "train" / "lq")


def test_what_is_named_like_an_image_and_is_none(gopro, tmp_path):
    source, _ = gopro
    os.mkfifo(source / "fifo.png")
    train, _ = _prepare("GoPro", source, tmp_path / "out", patch_size=0)
    assert train.failures == [f"{source}/fifo.png: it is a FIFO"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_it(gopro, tmp_path, monkeypatch, workers):
    def full(*_):
        failure = OSError("cannot write the image: No space left on device")
        failure.errno = errno.ENOSPC
        raise failure

    monkeypatch.setattr(writer, "imwrite", full)
    with pytest.raises(OSError, match="the disk of .*train is full; make room and start again: what is made is kept"):
        _prepare("GoPro", gopro[0], tmp_path / "out", patch_size=16, num_workers=workers)


# Sets with particulars


@pytest.mark.parametrize("patch_size", [0, 16])
def test_a_gt_of_several_lq_images_takes_its_space_once(tmp_path, patch_size):
    source = tmp_path / "Rain1400"
    sizes = {f"training/rainy_image/901_{n}.jpg": (20, 24) for n in (1, 2, 14)}
    _save(source, {**sizes, "training/ground_truth/901.jpg": (20, 24)})
    (train,) = _prepare("Rain1400", source, tmp_path / "out", patch_size=patch_size)
    folder = tmp_path / "out" / "train"
    ends = [".jpg"] if not patch_size else [f"_s{n:03d}.png" for n in range(1, 5)]
    for end in ends:
        files = [folder / "gt" / f"901_{n}{end}" for n in (1, 2, 14)]
        assert all(file.samefile(files[0]) for file in files)
        assert not files[0].samefile(source / "training" / "ground_truth" / "901.jpg")
    assert train.images == 3 * len(ends)
    assert train.nbytes["gt"] == sum((folder / "gt" / f"901_1{end}").stat().st_size for end in ends)


def test_no_hard_links(tmp_path, monkeypatch):
    """On a file system that has none, the others are copies."""

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    source = tmp_path / "set"
    _save(source, {"clear/1.jpg": (8, 8), "part1/1_0.8_0.2.jpg": (8, 8), "part1/1_1_0.1.jpg": (8, 8)})
    _prepare("RESIDE-OTS", source, tmp_path / "out")
    made = sorted((tmp_path / "out" / "train" / "gt").iterdir())
    assert [path.name for path in made] == ["1_0.8_0.2.jpg", "1_1_0.1.jpg"]
    assert {path.read_bytes() for path in made} == {(source / "clear" / "1.jpg").read_bytes()}
    assert not made[0].samefile(made[1])


def test_gt_with_a_margin_is_cut_to_lq(tmp_path):
    """SOTS indoor: hazy images of 620×460 pixels, GT of 640×480."""
    source = tmp_path / "SOTS" / "indoor"
    sizes = {"hazy/1400_1.png": (46, 62), "hazy/1400_2.png": (46, 62), "gt/1400.png": (66, 82)}
    sizes |= {"hazy/1401_1.png": (30, 30), "gt/1401.png": (30, 30)}
    images = _save(source, sizes)
    (test,) = _prepare("SOTS-indoor", source, tmp_path / "out")
    assert (test.images, test.failures) == (3, [])
    for name in ("1400_1", "1400_2"):
        made = cv2.imread(str(tmp_path / "out" / "test" / "gt" / f"{name}.png"))
        np.testing.assert_array_equal(made, images["gt/1400.png"][10:56, 10:72])
    made = cv2.imread(str(tmp_path / "out" / "test" / "gt" / "1401_1.png"))
    np.testing.assert_array_equal(made, images["gt/1401.png"])
    before = _state(tmp_path / "out")
    _prepare("SOTS-indoor", source, tmp_path / "out")
    assert _state(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["SOTS-outdoor", "SOTS-indoor"])
def test_other_margins_are_refused(tmp_path, name):
    _save(tmp_path / "set", {"hazy/1_1.png": (20, 20), "gt/1.png": (22, 22) if "indoor" in name else (40, 40)})
    (test,) = _prepare(name, tmp_path / "set", tmp_path / "out")
    assert "they must be equal" in test.failures[0]


def test_sidd_blocks_become_images(tmp_path):
    rng = np.random.default_rng(0)
    blocks = {key: rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8) for key in (NOISY, CLEAN)}
    source = tmp_path / "SIDD"
    source.mkdir()
    for key, values in blocks.items():
        savemat(source / f"{key}.mat", {key: values})
    (val,) = _prepare("SIDD", source, tmp_path / "out", num_workers=2)
    assert (val.part, val.pairs, val.images, val.cut.patch_size) == ("val", 6, 6, 0)
    for role, key in (("lq", NOISY), ("gt", CLEAN)):
        for image in range(2):
            for block in range(3):
                path = tmp_path / "out" / "val" / role / f"{image + 1:04d}_{block + 1:02d}.png"
                np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], blocks[key][image, block])


def test_real_rain(shared_data, tmp_path):
    """20 real pairs, from a folder that cannot be written to."""
    source = shared_data / "weather" / "SIRR20"
    (test,) = _prepare("Rain100L", source, tmp_path / "out", num_workers=2)
    assert (test.pairs, test.failures) == (20, [])
    for role, kind in (("lq", "rain"), ("gt", "norain")):
        made = sorted((tmp_path / "out" / "test" / role).iterdir())
        assert [path.read_bytes() for path in made] == [(source / kind / path.name).read_bytes() for path in made]
