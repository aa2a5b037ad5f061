"""PairedImageDataset and SingleImageDataset on images whose pixels are their own coordinates."""

import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

SCALE = 2
NAMES = ["a.b", "a", "photo 1"]  # in the order of files; a dot and a space that cut names must survive


def _lq(height: int = 10, width: int = 12, blue: int = 0) -> np.ndarray:
    """(H, W, 3) BGR: a constant, the row, the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, blue), rows, columns], axis=-1).astype(np.uint8)


def _write(path: Path, img: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, img)[1].tobytes())


@pytest.fixture
def folders(tmp_path) -> Path:
    """lq/<name>x2.png and gt/<name>.png; a GT pixel holds the row and column of its LQ pixel."""
    for number, name in enumerate(NAMES):
        lq = _lq(blue=number)
        _write(tmp_path / "lq" / f"{name}x2.png", lq)
        _write(tmp_path / "gt" / f"{name}.png", lq.repeat(SCALE, axis=0).repeat(SCALE, axis=1))
    return tmp_path


def _options(root: Path, **changes) -> dict:
    return {
        "name": "test",
        "type": "PairedImageDataset",
        "phase": "val",
        "scale": SCALE,
        "dataroot_gt": str(root / "gt"),
        "dataroot_lq": str(root / "lq"),
        "filename_tmpl": "{}x2",
        "io_backend": {"type": "disk"},
        **changes,
    }


def _training(root: Path, **changes) -> dict:
    return _options(root, phase="train", gt_size=8, use_hflip=True, use_rot=True, **changes)


def _to_lmdb(root: Path) -> dict:
    """Options that read the folders' images from databases."""
    for role, suffix in (("lq", "x2"), ("gt", "")):
        files = [f"{name}{suffix}.png" for name in NAMES]
        make_lmdb_from_imgs(str(root / role), str(root / f"{role}.lmdb"), files, [file[:-4] for file in files])
    return {
        "io_backend": {"type": "lmdb"},
        "dataroot_gt": str(root / "gt.lmdb"),
        "dataroot_lq": str(root / "lq.lmdb"),
    }


def test_evaluation_sample(folders):
    dataset = build_dataset(_options(folders))
    assert len(dataset) == 3
    for number, name in enumerate(NAMES):
        sample = dataset[number]
        assert Path(sample["lq_path"]).name == f"{name}x2.png" and Path(sample["gt_path"]).name == f"{name}.png"
        expected = _lq(blue=number)[..., ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(sample["lq"].numpy(), expected)
        np.testing.assert_array_equal(sample["gt"].numpy(), expected.repeat(2, axis=1).repeat(2, axis=2))
        assert sample["lq"].dtype == torch.float32


def test_training_crops_are_aligned_and_all_symmetries_occur(folders):
    random.seed(0)
    dataset = build_dataset(_training(folders))
    orientations, corners = set(), set()
    for _ in range(300):
        sample = dataset[1]
        assert sample["lq"].shape == (3, 4, 4) and sample["gt"].shape == (3, 8, 8)
        torch.testing.assert_close(sample["gt"][:, ::2, ::2], sample["lq"], rtol=0, atol=0)
        column, row = (sample["lq"][:2] * 255).round().int()
        orientations.add(
            tuple(int(v) for axis in (row, column) for v in (axis[0, 1] - axis[0, 0], axis[1, 0] - axis[0, 0]))
        )
        corners.add((int(row.min()), int(column.min())))
    assert orientations == {(0, r, c, 0) for r in (1, -1) for c in (1, -1)} | {
        (r, 0, 0, c) for r in (1, -1) for c in (1, -1)
    }
    assert corners == {(top, left) for top in range(7) for left in range(9)}


@pytest.mark.parametrize("make_options", [_options, _training])
def test_lmdb_gives_what_disk_gives(folders, make_options):
    disk = build_dataset(make_options(folders))
    database = build_dataset(make_options(folders, **_to_lmdb(folders)))
    assert len(disk) == len(database) == 3
    for index in range(3):
        random.seed(index)
        expected = disk[index]
        random.seed(index)
        sample = database[index]
        assert torch.equal(sample["lq"], expected["lq"]) and torch.equal(sample["gt"], expected["gt"])
        assert sample["gt_path"] == Path(expected["gt_path"]).stem


@pytest.mark.parametrize("storage", ["disk", "lmdb"])
def test_batches_do_not_depend_on_workers(folders, storage):
    options = _training(folders, **(_to_lmdb(folders) if storage == "lmdb" else {}))
    options |= {"batch_size_per_gpu": 2, "num_worker_per_gpu": 0}

    def run(workers, consumed=0):
        dataset = build_dataset(options)
        sampler = EnlargedSampler(dataset, 1, 0, ratio=4, seed=1)
        sampler.set_position(consumed)
        loader = build_dataloader(dataset, options | {"num_worker_per_gpu": workers}, sampler=sampler, seed=1)
        return [(batch["lq"], batch["gt"], batch["lq_path"]) for batch in loader]

    def same(a, b):
        return len(a) == len(b) and all(
            torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) and x[2] == y[2] for x, y in zip(a, b)
        )

    expected = run(0)
    assert len(expected) == 6
    assert same(run(2), expected)
    assert same(run(0, consumed=6), expected[3:]) and same(run(2, consumed=6), expected[3:])


def test_meta_info_file_chooses_and_orders(folders):
    meta = folders / "meta.txt"
    meta.write_text("photo 1.png (20,24,3)\n\na.b.png\n")
    dataset = build_dataset(_options(folders, meta_info_file=str(meta)))
    assert [Path(dataset[i]["lq_path"]).name for i in range(2)] == ["photo 1x2.png", "a.bx2.png"]
    assert len(dataset) == 2


def test_meta_info_file_with_sub_folders(tmp_path):
    for folder in ("one", "two"):
        _write(tmp_path / "gt" / folder / "0.png", _lq(4, 4))
        _write(tmp_path / "lq" / folder / "0x2.png", _lq(2, 2))
    (tmp_path / "meta.txt").write_text("one/0.png (4,4,3)\ntwo/0.png (4,4,3)\n")
    dataset = build_dataset(_options(tmp_path, meta_info_file=str(tmp_path / "meta.txt")))
    assert [Path(dataset[i]["lq_path"]).parts[-2] for i in range(2)] == ["one", "two"]


def test_the_extensions_of_a_pair_may_differ(tmp_path):
    _write(tmp_path / "gt" / "a.jpg", _lq(4, 4))
    _write(tmp_path / "lq" / "ax2.png", _lq(2, 2))
    assert build_dataset(_options(tmp_path))[0]["lq"].shape == (3, 2, 2)


def test_scale_is_1_when_absent(tmp_path):
    for role in ("gt", "lq"):
        _write(tmp_path / role / "a.png", _lq(9, 9))
    options = _options(tmp_path, filename_tmpl="{}")
    del options["scale"], options["io_backend"]
    assert build_dataset(options)[0]["gt"].shape == (3, 9, 9)


def test_luma_and_normalisation(folders):
    sample = build_dataset(_options(folders, color="y"))[0]
    blue, green, red = (_lq()[..., channel].astype(np.float64) / 255 for channel in range(3))
    luma = (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255  # ITU-R BT.601
    np.testing.assert_allclose(sample["lq"].numpy(), luma[None], atol=1e-6)
    assert sample["gt"].shape == (1, 20, 24)
    sample = build_dataset(_options(folders, mean=[0.5, 0.25, 0.0], std=[0.5, 0.5, 2.0]))[0]
    expected = np.stack([(red - 0.5) / 0.5, (green - 0.25) / 0.5, blue / 2])
    np.testing.assert_allclose(sample["lq"].numpy(), expected, atol=1e-6)


def test_gt_is_cut_to_lq_for_evaluation(tmp_path):
    _write(tmp_path / "gt" / "a.png", _lq(21, 29))
    _write(tmp_path / "lq" / "ax2.png", _lq(10, 12))
    gt = build_dataset(_options(tmp_path))[0]["gt"]
    np.testing.assert_array_equal((gt * 255).round().numpy(), _lq(21, 29)[:20, :24, ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(19, 24), (30, 24), (20, 36)])
def test_sizes_that_do_not_fit_name_the_files(tmp_path, size):
    _write(tmp_path / "gt" / "a.png", _lq(*size))
    _write(tmp_path / "lq" / "ax2.png", _lq(10, 12))
    message = rf"gt.a\.png is {size[0]}×{size[1]} pixels .*lq.ax2\.png 10×12; at scale 2 GT must be at least 20×24"
    with pytest.raises(ValueError, match=message):
        build_dataset(_options(tmp_path))[0]
    with pytest.raises(ValueError, match=rf"gt.a\.png: GT is {size[0]}×{size[1]} and LQ 10×12 .* GT must be 20×24"):
        build_dataset(_training(tmp_path))[0]


def test_a_crop_larger_than_the_image_names_it(folders):
    with pytest.raises(ValueError, match=r"gt.a\.png: GT of 20×24 pixels .*smaller than a crop of 22×22"):
        build_dataset(_training(folders) | {"gt_size": 22})[1]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"not an image"]
)
def test_damaged_images_are_named(folders, damage):
    path = folders / "lq" / "ax2.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"cannot read the lq image .*ax2\.png"):
        build_dataset(_options(folders))[1]


def test_a_damaged_image_is_named_through_workers(folders):
    (folders / "gt" / "a.png").write_bytes(b"\x89PNG")
    options = _training(folders) | {"batch_size_per_gpu": 1, "num_worker_per_gpu": 1}
    with pytest.raises(ValueError, match=r"cannot read the gt image .*a\.png"):
        list(build_dataloader(build_dataset(options), options, seed=0))


def test_a_damaged_value_of_a_database_is_named(folders):
    import lmdb

    options = _options(folders, **_to_lmdb(folders))
    with lmdb.open(str(folders / "lq.lmdb"), map_size=2**20) as database, database.begin(write=True) as transaction:
        transaction.put(b"ax2", b"damaged")
    with pytest.raises(ValueError, match=r"cannot read the lq image .*lq\.lmdb.ax2"):
        build_dataset(options)[1]


def test_missing_pairs_are_named(folders):
    (folders / "lq" / "a.bx2.png").unlink()
    with pytest.raises(
        ValueError, match=r"lq lacks the lq \(filename_tmpl '\{\}x2'\) of images in .*gt: a\.bx2\.png\."
    ):
        build_dataset(_options(folders))
    with pytest.raises(ValueError, match=r"a\.b\.png, a\.png, photo 1\.png\. 2 are there, the first of them ax2\.png"):
        build_dataset(_options(folders, filename_tmpl="{}"))


def test_superfluous_lq_images_are_named(folders):
    _write(folders / "lq" / "lonelyx2.png", _lq())
    with pytest.raises(ValueError, match=r"gt lacks the gt .* of images in .*lq: lonelyx2\.png"):
        build_dataset(_options(folders))


def test_images_missing_from_a_meta_info_file_are_named(folders):
    meta = folders / "meta.txt"
    meta.write_text("".join(f"{i}.png (1,1,3)\n" for i in range(7)))
    with pytest.raises(ValueError, match=r"lacks gt images listed in .*meta\.txt: 0\.png, .*4\.png and 2 more\."):
        build_dataset(_options(folders, meta_info_file=str(meta)))
    meta.write_text("a.png (20,24,3)\n")
    (folders / "lq" / "ax2.png").unlink()
    with pytest.raises(ValueError, match=r"of images listed in .*meta\.txt: ax2\.png"):
        build_dataset(_options(folders, meta_info_file=str(meta)))


def test_missing_pairs_of_databases_are_named(folders):
    changes = _to_lmdb(folders)
    make_lmdb_from_imgs(str(folders / "lq"), str(folders / "few.lmdb"), ["ax2.png"], ["ax2"])
    with pytest.raises(ValueError, match=r"few\.lmdb lacks lq images .*: a\.bx2, photo 1x2\."):
        build_dataset(_options(folders, **changes | {"dataroot_lq": str(folders / "few.lmdb")}))


def test_empty_and_missing_places(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"the folder .*empty holds no images \(bmp, "):
        build_dataset(_options(folders, dataroot_gt=str(tmp_path / "empty")))
    with pytest.raises(FileNotFoundError, match="the folder .*nowhere does not exist"):
        build_dataset(_options(folders, dataroot_gt=str(tmp_path / "nowhere")))
    with pytest.raises(FileNotFoundError, match="none.txt does not exist; scripts/data_preparation/generate_meta_info"):
        build_dataset(_options(folders, meta_info_file="none.txt"))
    (tmp_path / "blank.txt").write_text("\n")
    with pytest.raises(ValueError, match="blank.txt lists no image"):
        build_dataset(_options(folders, meta_info_file=str(tmp_path / "blank.txt")))
    with pytest.raises(ValueError, match="ends in .lmdb, and .*lq does not"):
        build_dataset(_options(folders, io_backend={"type": "lmdb"}))


def test_wrong_options(folders):
    with pytest.raises(ValueError, match="unknown storage 'petrel': io_backend.type is one of disk, lmdb"):
        build_dataset(_options(folders, io_backend={"type": "petrel"}))
    with pytest.raises(ValueError, match="io_backend of type 'disk' cannot have the options {'speed': 3}"):
        build_dataset(_options(folders, io_backend={"type": "disk", "speed": 3}))
    with pytest.raises(ValueError, match="test: training needs gt_size"):
        build_dataset(_options(folders, phase="train"))


def test_single_images(folders):
    options = {"name": "one", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": str(folders / "lq")}
    dataset = build_dataset(options)
    paired = build_dataset(_options(folders))
    assert len(dataset) == 3
    for index in range(3):
        assert set(dataset[index]) == {"lq", "lq_path"}
        assert torch.equal(dataset[index]["lq"], paired[index]["lq"])
        assert dataset[index]["lq_path"] == paired[index]["lq_path"]
    luma = build_dataset(options | {"color": "y", "mean": [0.5], "std": [0.5]})[2]["lq"]
    torch.testing.assert_close(luma, build_dataset(_options(folders, color="y"))[2]["lq"] * 2 - 1)


def test_single_images_from_a_list_and_from_a_database(folders):
    options = {"name": "one", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": str(folders / "lq")}
    meta = folders / "meta.txt"
    meta.write_text("photo 1x2.png (10,12,3)\n")
    listed = build_dataset(options | {"meta_info_file": str(meta)})
    assert [Path(listed[i]["lq_path"]).name for i in range(len(listed))] == ["photo 1x2.png"]
    meta.write_text("gone.png\n")
    with pytest.raises(ValueError, match="lq lacks images listed in .*meta.txt: gone.png"):
        build_dataset(options | {"meta_info_file": str(meta)})
    changes = _to_lmdb(folders)
    stored = build_dataset(options | {"io_backend": {"type": "lmdb"}, "dataroot_lq": changes["dataroot_lq"]})
    assert torch.equal(stored[1]["lq"], build_dataset(options)[1]["lq"])
    assert stored[0]["lq_path"] == stored.paths[0] == "a.bx2"  # a key, which has no extension
