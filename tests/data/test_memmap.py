"""Decoded storage: the same samples as from files, made whole or not at all, and damage that is told in sentences."""

import errno
import json
import logging
import pickle
import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.data.memmap import writer as memmap_writer
from basicsr.data.memmap.images import MemmapImages
from basicsr.data.memmap.writer import create_memmap

ROOT = Path(__file__).resolve().parents[2]
SCALE = 2
SIZES = {"a.b.png": (10, 12), "a.png": (14, 9), "deep/photo 1.png": (11, 11)}


def _noise(height: int, width: int, seed: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, 3), dtype)


def _write(path: Path, img: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, img)[1].tobytes())


def _write_pairs(root: Path, dtype=np.uint8) -> None:
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        lq_name = Path(name).with_name(f"{Path(name).stem}x2.png")
        _write(root / "lq" / lq_name, _noise(height, width, seed, dtype))
        _write(root / "gt" / name, _noise(height * SCALE, width * SCALE, seed + 10, dtype))


def _store(root: Path) -> None:
    for role in ("lq", "gt"):
        assert create_memmap(str(root / role), str(root / f"{role}.memmap")) == []


@pytest.fixture
def pairs(tmp_path) -> Path:
    """lq/ and gt/ with a picture in a sub-folder, and both decoded."""
    _write_pairs(tmp_path)
    _store(tmp_path)
    return tmp_path


def _options(root: Path, storage: str, **changes) -> dict:
    ending = ".memmap" if storage == "memmap" else ""
    return {
        "name": "test",
        "type": "PairedImageDataset",
        "phase": "train",
        "scale": SCALE,
        "dataroot_gt": str(root / f"gt{ending}"),
        "dataroot_lq": str(root / f"lq{ending}"),
        "filename_tmpl": "{}x2",
        "io_backend": {"type": storage},
        "gt_size": 8,
        "use_hflip": True,
        "use_rot": True,
        "batch_size_per_gpu": 2,
        "num_worker_per_gpu": 0,
        **changes,
    }


def _batches(options: dict) -> list[dict]:
    dataset = build_dataset(options)
    dataset[0]  # what a worker inherits has been opened already
    sampler = EnlargedSampler(dataset, 1, 0, ratio=8, seed=5)
    return list(build_dataloader(dataset, options, sampler=sampler, seed=5))


def _assert_same(batches: list[dict], expected: list[dict]) -> None:
    assert len(batches) == len(expected) > 3
    for batch, wanted in zip(batches, expected):
        assert list(batch) == list(wanted)
        for key in ("lq", "gt"):
            assert batch[key].dtype == torch.float32 and torch.equal(batch[key], wanted[key])
            names = [[Path(path).name for path in b[f"{key}_path"]] for b in (batch, wanted)]
            assert names[0] == names[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_worker_per_gpu": 2},
        {"color": "y", "use_rot": False},
        {"mean": [0.4, 0.5, 0.6], "std": [0.5, 0.25, 2.0], "use_hflip": False},
        {"color": "y", "mean": [0.5], "std": [0.3]},
        {"meta_info_file": "meta.txt"},
    ],
)
def test_batches_are_those_of_files(pairs, changes, monkeypatch):
    monkeypatch.chdir(pairs)
    Path("meta.txt").write_text("deep/photo 1.png (22,22,3)\na.png (28,18,3)\n")
    disk, stored = (_batches(_options(pairs, storage, **changes)) for storage in ("disk", "memmap"))
    _assert_same(stored, disk)


def test_16_bit_files_keep_their_depth(tmp_path):
    _write_pairs(tmp_path, np.uint16)
    _store(tmp_path)
    disk, stored = (_batches(_options(tmp_path, storage)) for storage in ("disk", "memmap"))
    _assert_same(stored, disk)
    values = torch.cat([batch["gt"].flatten() for batch in stored]).double() * 65535
    assert (values - values.round()).abs().max() < 0.01 and (values % 257 > 0.5).any()  # not 8 bits spread out


def test_every_value_is_divided_as_when_files_are_read_whole(tmp_path):
    from basicsr.utils.img_util import imread

    for depth, side in ((np.uint8, 16), (np.uint16, 256)):
        img = np.arange(side * side, dtype=depth).reshape(side, side)
        path = tmp_path / f"{side}" / "all.png"
        _write(path, np.stack([img] * 3, -1))
        (lq,) = build_dataset({"type": "SingleImageDataset", "name": "n", "dataroot_lq": str(path.parent)})
        np.testing.assert_array_equal(lq["lq"].numpy().transpose(1, 2, 0)[..., ::-1], imread(path, float32=True))
        np.testing.assert_array_equal(lq["lq"][0].numpy(), img.astype(np.float32) / np.float32(np.iinfo(depth).max))


def test_whole_images(pairs):
    for phase, changes in (("val", {}), ("test", {"color": "y"})):
        disk, stored = (build_dataset(_options(pairs, s, phase=phase, **changes)) for s in ("disk", "memmap"))
        assert len(disk) == len(stored) == 2  # the sub-folder's picture is for a meta_info file to name
        for index in range(2):
            assert torch.equal(disk[index]["gt"], stored[index]["gt"])
            assert torch.equal(disk[index]["lq"], stored[index]["lq"])
    options = {"name": "n", "type": "SingleImageDataset", "dataroot_lq": str(pairs / "lq")}
    disk = build_dataset(options)
    stored = build_dataset(
        options | {"dataroot_lq": str(pairs / "lq.memmap") + "/", "io_backend": {"type": "memmap", "verify": True}}
    )
    assert [Path(path).name for path in stored.paths] == ["a.bx2.png", "ax2.png"]
    assert all(torch.equal(disk[index]["lq"], stored[index]["lq"]) for index in range(2))


def test_a_batch_is_its_samples(pairs):
    class AsSamples(type(build_dataset(_options(pairs, "memmap")))):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"mine": index}

    options = _options(pairs, "memmap")
    batches = _batches(options)
    dataset = AsSamples(options)
    sampler = EnlargedSampler(dataset, 1, 0, ratio=8, seed=5)
    samples = list(build_dataloader(dataset, options, sampler=sampler, seed=5))
    assert all("mine" in batch for batch in samples)  # an overridden __getitem__ is not passed by
    for batch in samples:
        del batch["mine"]
    _assert_same(samples, batches)


def test_reading_batches_leaves_the_global_generators_alone(pairs):
    options = _options(pairs, "memmap")
    dataset = build_dataset(options)
    loader = build_dataloader(dataset, options, sampler=EnlargedSampler(dataset, 1, 0), seed=5)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert len(list(loader)) == 1
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_the_format(pairs):
    """Two files that can be read without us."""
    head, *lines = (pairs / "gt.memmap" / "index.jsonl").read_text().splitlines()
    assert json.loads(head)["version"] == 1
    for line, name in zip(lines, SIZES):
        image = json.loads(line)
        assert image["name"] == name and image["offset"] % 64 == 0
        height, width, _ = image["shape"]
        pixels = np.fromfile(
            pairs / "gt.memmap" / "pixels.bin", image["dtype"], height * width * 3, offset=image["offset"]
        )
        np.testing.assert_array_equal(pixels.reshape(height, width, 3), cv2.imread(str(pairs / "gt" / name)))


def test_images_are_views_that_survive_pickling(pairs):
    images = MemmapImages(str(pairs / "gt.memmap"))
    first = images.image("a.png")
    assert not first.flags.owndata and not first.flags.writeable
    content = pickle.dumps(images)
    assert len(content) < 4000  # the index, not the pixels
    np.testing.assert_array_equal(pickle.loads(content).image("a.png"), first)
    dataset = build_dataset(_options(pairs, "memmap"))
    dataset[0]
    content = pickle.dumps(dataset)
    assert len(content) < 8000 and len(pickle.loads(content)[0]) == 4
    with pytest.raises(KeyError, match=r"gt\.memmap has no image 'b\.png'"):
        images.image("b.png")


def test_a_crop_larger_than_the_image_names_it(pairs):
    with pytest.raises(ValueError, match=r"gt\.memmap.a\.b\.png: GT of 20×24 pixels .*smaller than a crop of 22×22"):
        build_dataset(_options(pairs, "memmap", gt_size=22))[0]


def _replaced(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda gt: (gt / "index.jsonl").unlink(),
            FileNotFoundError,
            r"gt\.memmap holds no decoded images: it has no index\.jsonl; scripts/data_preparation/create_memmap\.py",
        ),
        (
            lambda gt: _replaced(gt / "index.jsonl", b'"version": 1', b'"version": 7'),
            ValueError,
            r"gt\.memmap has version 7 of the format, and this release reads version 1; create it again",
        ),
        (
            lambda gt: _replaced(gt / "index.jsonl", b'"offset": 0', b'"offset": 3'),
            ValueError,
            r"index\.jsonl is damaged: its checksum is wrong",
        ),
        (
            lambda gt: (gt / "index.jsonl").write_bytes(b"\x00" * 100),
            ValueError,
            r"index\.jsonl is damaged: its first line cannot be read",
        ),
        (
            # 20·24·3 = 1440 and 28·18·3 = 1512 bytes, each rounded up to a multiple of 64, and 22·22·3 = 1452
            lambda gt: (gt / "pixels.bin").write_bytes((gt / "pixels.bin").read_bytes()[:1000]),
            ValueError,
            r"pixels\.bin has 1000 bytes and should have 4460: it is incomplete",
        ),
        (lambda gt: (gt / "pixels.bin").unlink(), ValueError, r"pixels\.bin has 0 bytes"),
    ],
)
def test_damage_is_told(pairs, damage, error, message):
    damage(pairs / "gt.memmap")
    with pytest.raises(error, match=message):
        build_dataset(_options(pairs, "memmap"))


def test_wrong_places_and_options_are_told(pairs):
    with pytest.raises(ValueError, match=r"decoded images ends in \.memmap, and .*gt does not; for image files use"):
        build_dataset(_options(pairs, "memmap", dataroot_gt=str(pairs / "gt")))
    with pytest.raises(ValueError, match=r"lq\.memmap holds decoded images; read it with io_backend: \{type: memmap\}"):
        build_dataset(_options(pairs, "memmap", io_backend={"type": "disk"}))
    with pytest.raises(FileNotFoundError, match=r"no\.memmap holds no decoded images"):
        build_dataset(_options(pairs, "memmap", dataroot_gt=str(pairs / "no.memmap")))
    with pytest.raises(ValueError, match="type 'memmap' cannot have the options {'speed': 3}"):
        build_dataset(_options(pairs, "memmap", io_backend={"type": "memmap", "speed": 3}))
    with pytest.raises(ValueError, match=r"lacks the lq .* of images in .*gt\.memmap: a\.b\.png, a\.png"):
        build_dataset(_options(pairs, "memmap", filename_tmpl="{}"))
    create_memmap(str(pairs / "gt" / "deep"), str(pairs / "only.memmap"))
    _write(pairs / "outer" / "deep" / "a.png", _noise(4, 4, 0))
    create_memmap(str(pairs / "outer"), str(pairs / "outer.memmap"))
    with pytest.raises(ValueError, match=r"outer\.memmap holds no images but those of sub-folders"):
        build_dataset(_options(pairs, "memmap", dataroot_gt=str(pairs / "outer.memmap")))


def test_a_damaged_pixel_is_found_on_request(pairs):
    pixels = pairs / "gt.memmap" / "pixels.bin"
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 1
    pixels.write_bytes(content)
    build_dataset(_options(pairs, "memmap"))
    with pytest.raises(ValueError, match=r"gt\.memmap is damaged: 1 images \(deep/photo 1\.png\)"):
        build_dataset(_options(pairs, "memmap", io_backend={"type": "memmap", "verify": True}))
    (failure,) = create_memmap(str(pairs / "gt"), str(pairs / "gt.memmap"), num_workers=2, verify=True)
    assert "deep/photo 1.png" in failure and "damaged" in failure


def test_images_that_have_changed_since_are_told(pairs, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging.getLogger("basicsr"), "warning", warnings.append)
    build_dataset(_options(pairs, "memmap"))
    assert not warnings
    _write(pairs / "gt" / "a.png", _noise(8, 8, 3))
    _write(pairs / "gt" / "new.png", _noise(8, 8, 3))
    (pairs / "gt" / "deep" / "photo 1.png").unlink()
    build_dataset(_options(pairs, "memmap"))
    (warning,) = warnings
    assert "1 changed (a.png), 1 new (new.png), 1 gone (deep/photo 1.png). The stored images are used" in warning
    for path in (pairs / "gt").rglob("*.png"):
        path.unlink()
    build_dataset(_options(pairs, "memmap"))  # files that were removed to save the space are none that have changed
    assert len(warnings) == 1


def _command(*arguments) -> subprocess.CompletedProcess:
    script = str(ROOT / "scripts" / "data_preparation" / "create_memmap.py")
    return subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True, cwd="/")


def test_the_command(tmp_path):
    _write_pairs(tmp_path)
    arguments = ("--input", tmp_path / "gt", "--output", tmp_path / "gt.memmap", "--num-workers", 2)
    (tmp_path / "gt" / "bad.png").write_bytes(b"bad")
    (tmp_path / "gt" / "empty.png").write_bytes(b"")
    done = _command(*arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "nothing was stored" in done.stderr and "bad.png: 3 bytes" in done.stderr and "empty.png" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gt", "lq"]
    (tmp_path / "gt" / "bad.png").unlink()
    (tmp_path / "gt" / "empty.png").unlink()
    assert _command(*arguments, "--verify").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gt", "gt.memmap", "lq"]
    assert sorted(path.name for path in (tmp_path / "gt.memmap").iterdir()) == ["index.jsonl", "pixels.bin"]


def test_what_is_there_is_left_alone_or_refused(pairs):
    written = (pairs / "gt.memmap" / "pixels.bin").stat().st_mtime_ns
    create_memmap(str(pairs / "gt"), str(pairs / "gt.memmap"))
    assert (pairs / "gt.memmap" / "pixels.bin").stat().st_mtime_ns == written
    _write(pairs / "gt" / "a.png", _noise(8, 8, 3))
    with pytest.raises(FileExistsError, match=r"gt\.memmap exists, and .*gt has other images: 1 changed \(a\.png\); "):
        create_memmap(str(pairs / "gt"), str(pairs / "gt.memmap"))
    with pytest.raises(ValueError, match=r"must end in \.memmap: .*stored"):
        create_memmap(str(pairs / "gt"), str(pairs / "stored"))


def test_a_run_that_was_killed_is_continued(tmp_path, monkeypatch):
    _write_pairs(tmp_path)
    create_memmap(str(tmp_path / "gt"), str(tmp_path / "whole.memmap"))
    script = """
import os, sys
sys.path.insert(0, sys.argv[1])
from basicsr.data.memmap import writer as memmap_writer
store = memmap_writer._store_image
def dying(image, **where):
    if image.name.startswith("deep"):
        os._exit(9)
    return store(image, **where)
memmap_writer._store_image = dying
memmap_writer.create_memmap(sys.argv[2], sys.argv[3])
"""
    output = str(tmp_path / "gt.memmap")
    killed = [sys.executable, "-c", script, str(ROOT), str(tmp_path / "gt"), output]
    assert subprocess.run(killed).returncode == 9
    assert not Path(output).exists()
    aside = tmp_path / ".gt.memmap.unfinished"
    with open(aside / "journal.txt", "a") as journal:
        journal.write("2 12")  # torn
    with open(aside / "pixels.bin", "r+b") as pixels:
        pixels.write(b"lost")  # of the first image not everything reached the disk
    decoded = []
    store = memmap_writer._store_image
    monkeypatch.setattr(memmap_writer, "_measure", None)
    monkeypatch.setattr(
        memmap_writer, "_store_image", lambda image, **where: decoded.append(image.name) or store(image, **where)
    )
    assert create_memmap(str(tmp_path / "gt"), output, verify=True) == []
    assert decoded == ["a.b.png", "deep/photo 1.png"] and not aside.exists()
    for name in ("pixels.bin", "index.jsonl"):
        assert Path(output, name).read_bytes() == (tmp_path / "whole.memmap" / name).read_bytes()


def test_a_continued_run_starts_anew_when_images_have_changed(tmp_path, monkeypatch):
    _write_pairs(tmp_path)
    output = str(tmp_path / "gt.memmap")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(memmap_writer, "_store_image", _interrupted)
        create_memmap(str(tmp_path / "gt"), output)
    _write(tmp_path / "gt" / "a.png", _noise(6, 6, 3))
    create_memmap(str(tmp_path / "gt"), output)
    np.testing.assert_array_equal(MemmapImages(output).image("a.png"), _noise(6, 6, 3))


def _interrupted(image, **where):
    raise KeyboardInterrupt


def test_a_disk_too_small_is_told_before_anything_is_stored(tmp_path, monkeypatch):
    _write_pairs(tmp_path)
    output = str(tmp_path / "gt.memmap")
    with monkeypatch.context() as patch:
        patch.setattr(memmap_writer.shutil, "disk_usage", lambda path: memmap_writer.shutil._ntuple_diskusage(9, 8, 1))
        with pytest.raises(OSError, match=r"3 decoded images need 4\.4 KB, and the disk of .* has 1\.0 B free; make"):
            create_memmap(str(tmp_path / "gt"), output)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="is full; make room and start again"):
        patch.setattr(memmap_writer, "_store_image", _no_space)
        create_memmap(str(tmp_path / "gt"), output)
    assert not Path(output).exists()
    assert create_memmap(str(tmp_path / "gt"), output, verify=True) == []


def _no_space(image, **where):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_image_that_changes_meanwhile_is_told(tmp_path, monkeypatch):
    _write_pairs(tmp_path)
    measure = memmap_writer._measure
    monkeypatch.setattr(
        memmap_writer,
        "_measure",
        lambda name, folder: (measure(name, folder), _write(tmp_path / "gt" / name, _noise(5, 5, 1)))[0],
    )
    with pytest.raises(ValueError, match=r"a\.b\.png: the file was changed while it was being stored; start again"):
        create_memmap(str(tmp_path / "gt"), str(tmp_path / "gt.memmap"))


def test_files_of_every_kind_are_stored_as_datasets_see_them(tmp_path):
    from basicsr.utils.img_util import imread

    folder = tmp_path / "in"
    _write(folder / "grey.png", _noise(5, 6, 0)[..., 0])
    _write(folder / "alpha.png", np.dstack([_noise(5, 6, 1), _noise(5, 6, 2)[..., :1]]))
    _write(folder / "deep.png", _noise(5, 6, 3, np.uint16))
    _write(folder / "float.tiff", np.random.default_rng(0).random((5, 6, 3), dtype=np.float32))
    _write(folder / "ünïcode.jpg", _noise(8, 8, 4))
    assert create_memmap(str(folder), str(tmp_path / "out.memmap"), num_workers=2) == []
    images = MemmapImages(str(tmp_path / "out.memmap"))
    for image in images.index.images:
        largest = {"uint8": 255, "uint16": 65535, "float32": 1}[image.dtype]
        stored = images.image(image.name).astype(np.float32) / np.float32(largest)
        np.testing.assert_array_equal(stored, imread(folder / image.name, float32=True))
    assert {image.dtype for image in images.index.images} == {"uint8", "uint16", "float32"}
    _write(folder / "double.tiff", np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"double\.tiff: pixels of type float64 cannot be stored, only uint8, uint16"):
        create_memmap(str(folder), str(tmp_path / "double.memmap"))
