"""Several folders as one data set, pairs at scale 1, and Restormer's key for all symmetries."""

import math
import random
import textwrap

import cv2
import numpy as np
import pytest
import torch

from basicsr.data import build_dataset
from basicsr.data.memmap.writer import create_memmap
from basicsr.engine.evaluate.evaluator import image_name
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.options import read_options
from basicsr.utils.options.errors import OptionError

NAMES = ["0.png", "1.a.png", "1.b.png"]  # the same in each folder; a dot in a name must survive


def coordinates(height, width, blue):
    """(H, W, 3) BGR: a constant, the row, the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, blue), rows, columns], axis=-1).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """rain/{gt,lq} and noise/{gt,lq}, of odd sizes at scale 1; an LQ pixel is 100 bluer than its GT pixel."""
    for task, blue in (("rain", 0), ("noise", 50)):
        for role, more in (("gt", 0), ("lq", 100)):
            (tmp_path / task / role).mkdir(parents=True)
            for number, name in enumerate(NAMES):
                image = coordinates(11, 13 + 2 * number, blue + number + more)
                cv2.imwrite(str(tmp_path / task / role / name), image)
    return tmp_path


def stored(root, storage):
    """The roots of both tasks by role, in a storage."""
    found = {"gt": [], "lq": []}
    for task in ("rain", "noise"):
        for role, places in found.items():
            folder = root / task / role
            if storage == "lmdb":
                place = f"{folder}.lmdb"
                make_lmdb_from_imgs(str(folder), place, NAMES, [name[:-4] for name in NAMES])
            elif storage == "memmap":
                place = f"{folder}.memmap"
                assert create_memmap(str(folder), place) == []
            else:
                place = str(folder)
            places.append(place)
    return found


def pairs(gt, lq, phase="val", storage="disk", **changes):
    opt = {"name": "n", "type": "PairedImageDataset", "phase": phase, "scale": 1, "dataroot_gt": gt, "dataroot_lq": lq}
    return {**opt, "io_backend": {"type": storage}, **changes}


def values(image):
    """(blue, row, column) of a tensor's upper left pixel."""
    return [round(float(image[channel, 0, 0]) * 255) for channel in (2, 1, 0)]


@pytest.mark.parametrize("storage", ["disk", "lmdb", "memmap"])
def test_pairs_are_matched_folder_by_folder(folders, storage):
    roots = stored(folders, storage)
    dataset = build_dataset(pairs(roots["gt"], roots["lq"], storage=storage))
    assert len(dataset) == 6
    blues = []
    for index in range(6):
        sample = dataset[index]
        assert sample["lq"].shape == sample["gt"].shape == (3, 11, 13 + 2 * (index % 3))
        assert values(sample["lq"])[0] == values(sample["gt"])[0] + 100
        blues.append(values(sample["gt"])[0])
    assert blues == [0, 1, 2, 50, 51, 52]


@pytest.mark.parametrize("storage", ["disk", "lmdb", "memmap"])
@pytest.mark.parametrize("kind", ["PairedImageDataset", "SingleImageDataset", "DegradedImageDataset"])
def test_images_of_two_folders_keep_different_names(folders, storage, kind):
    roots = stored(folders, storage)
    if kind == "PairedImageDataset":
        opt, role = pairs(roots["gt"], roots["lq"], storage=storage), "lq"
    else:
        role = "lq" if kind == "SingleImageDataset" else "gt"
        opt = {"name": "n", "type": kind, "phase": "test", f"dataroot_{role}": roots[role]}
        opt |= {"io_backend": {"type": storage}}
        opt |= {"degradations": [{"type": "jpeg", "quality": 50}]} if role == "gt" else {}
    dataset = build_dataset(opt)
    samples = [dataset[index] for index in range(6)]
    names = [image_name({key: [value] for key, value in s.items() if key.endswith("_path")}, opt) for s in samples]
    ending = {"disk": "", "lmdb": ".lmdb", "memmap": ".memmap"}[storage]
    assert names == [f"{task}/{role}{ending}/{name[:-4]}" for task in ("rain", "noise") for name in NAMES]


def test_a_list_of_one_is_a_folder(folders):
    gt, lq = str(folders / "rain" / "gt"), str(folders / "rain" / "lq")
    one, same = build_dataset(pairs(gt, lq)), build_dataset(pairs([gt], [lq]))
    assert one.paths == same.paths
    assert image_name({"lq_path": [one.paths[1]["lq_path"]]}, same.opt) == "1.a"


def test_a_nested_folder_is_not_mistaken_for_its_parent(folders, tmp_path):
    inner = folders / "rain" / "gt" / "sub"
    inner.mkdir()
    cv2.imwrite(str(inner / "0.png"), coordinates(5, 5, 200))
    outer = str(folders / "rain" / "gt")
    for root in (outer, str(inner)):
        assert create_memmap(root, f"{root}.memmap") == []
    opt = {"name": "n", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": [outer, str(inner)]}
    dataset = build_dataset(opt)
    assert [values(dataset[index]["lq"])[0] for index in range(4)] == [0, 1, 2, 200]
    names = [image_name({"lq_path": [path]}, opt) for path in dataset.paths]
    assert names == ["0", "1.a", "1.b", "sub/0"]


def test_one_gt_folder_may_have_several_lq_folders(folders):
    gt = str(folders / "rain" / "gt")
    dataset = build_dataset(pairs([gt, gt], [str(folders / "rain" / "lq"), str(folders / "noise" / "lq")]))
    assert [values(dataset[index]["lq"])[0] for index in range(6)] == [100, 101, 102, 150, 151, 152]


def test_lists_that_do_not_fit(folders):
    roots = stored(folders, "disk")
    with pytest.raises(ValueError, match="dataroot_gt names 2 folders and dataroot_lq 1 folder; .* as many of both"):
        build_dataset(pairs(roots["gt"], roots["lq"][:1]))
    with pytest.raises(ValueError, match="dataroot_gt names 1 folder and dataroot_lq 2 folders"):
        build_dataset(pairs(roots["gt"][0], roots["lq"]))
    with pytest.raises(ValueError, match="is listed twice"):
        build_dataset(pairs([roots["gt"][0]] * 2, [roots["lq"][0], roots["lq"][0] + "/"]))
    with pytest.raises(ValueError, match="meta_info_file lists the images of one folder, and there are 2"):
        build_dataset(pairs(roots["gt"], roots["lq"], meta_info_file="m.txt"))
    (folders / "noise" / "lq" / NAMES[1]).unlink()
    with pytest.raises(ValueError, match=r"noise/lq lacks the lq .* of images in .*noise/gt: 1\.a\.png"):
        build_dataset(pairs(roots["gt"], roots["lq"]))


def test_odd_sizes_at_scale_1_keep_pairs_aligned_through_crops_and_flips(folders):
    roots = stored(folders, "disk")
    opt = pairs(roots["gt"], roots["lq"], "train", gt_size=7, use_hflip=True, use_rot=True)
    dataset = build_dataset(opt)
    random.seed(1)
    corners = set()
    for turn in range(3000):
        sample = dataset[turn % 6]
        assert sample["lq"].shape == sample["gt"].shape == (3, 7, 7)
        torch.testing.assert_close(sample["lq"][:2], sample["gt"][:2], rtol=0, atol=0)
        column, row = (sample["gt"][:2] * 255).round().int()
        if turn % 6 == 0:
            corners.add((int(row.min()), int(column.min())))
    assert corners == {(top, left) for top in range(5) for left in range(7)}


def test_a_crop_as_large_as_an_odd_image_fits(tmp_path):
    for role, more in (("gt", 0), ("lq", 100)):
        (tmp_path / role).mkdir()
        cv2.imwrite(str(tmp_path / role / "a.png"), coordinates(9, 9, more))
    sample = build_dataset(pairs(str(tmp_path / "gt"), str(tmp_path / "lq"), "train", gt_size=9))[0]
    assert sample["gt"].shape == (3, 9, 9)
    with pytest.raises(ValueError, match="smaller than a crop of 10×10"):
        build_dataset(pairs(str(tmp_path / "gt"), str(tmp_path / "lq"), "train", gt_size=10))[0]


def test_sizes_that_differ_at_scale_1_are_refused(tmp_path):
    for role, width in (("gt", 10), ("lq", 9)):
        (tmp_path / role).mkdir()
        cv2.imwrite(str(tmp_path / role / "a.png"), coordinates(9, width, 0))
    with pytest.raises(ValueError, match="GT is 9×10 and LQ 9×9 .* at scale 1 GT must be 9×9"):
        build_dataset(pairs(str(tmp_path / "gt"), str(tmp_path / "lq"), "train", gt_size=5))[0]


@pytest.mark.parametrize("keys", [{}, {"use_hflip": True, "use_rot": True}])
def test_geometric_augs_draws_all_eight_equally_often_and_lq_like_gt(tmp_path, keys):
    for role, more in (("gt", 0), ("lq", 100)):
        (tmp_path / role).mkdir()
        cv2.imwrite(str(tmp_path / role / "a.png"), coordinates(6, 6, more))
    opt = pairs(str(tmp_path / "gt"), str(tmp_path / "lq"), "train", gt_size=6, geometric_augs=True, **keys)
    dataset = build_dataset(opt)
    random.seed(2)
    counts: dict[tuple, int] = {}
    for _ in range(1600):
        sample = dataset[0]
        assert torch.equal(sample["lq"][:2], sample["gt"][:2])
        column, row = (sample["gt"][:2] * 255).round().int()
        key = tuple(int(v) for axis in (row, column) for v in (axis[0, 0], axis[0, 5], axis[5, 0]))
        counts[key] = counts.get(key, 0) + 1
    original = coordinates(6, 6, 0)[..., 1:]
    turned = [np.rot90(original, k) for k in range(4)]
    turned += [np.flipud(image) for image in turned]  # Restormer's eight modes
    expected = {tuple(int(v) for c in (0, 1) for v in (t[0, 0, c], t[0, 5, c], t[5, 0, c])) for t in turned}
    assert counts.keys() == expected and len(expected) == 8
    assert all(abs(count - 200) < 5 * math.sqrt(1600 / 8 * 7 / 8) for count in counts.values())


def write(path, **changes):
    lines = "".join(f"    {key}: {value}\n" for key, value in changes.items())
    head = """\
        name: x
        model_type: SRModel
        scale: 1
        datasets:
          test_1:
            name: n
            type: PairedImageDataset
        """
    path.write_text(textwrap.dedent(head) + lines + "network_g: {type: DnCNN, in_nc: 3, out_nc: 3}\n")
    return path


def test_geometric_augs_beside_one_of_the_others_is_refused(tmp_path):
    roots = {"dataroot_gt": "gt", "dataroot_lq": "lq"}
    opt, _ = read_options(write(tmp_path / "a.yml", **roots, geometric_augs="true"))
    assert opt["datasets"]["test_1"]["geometric_augs"] is True
    read_options(write(tmp_path / "b.yml", **roots, geometric_augs="true", use_hflip="true", use_rot="true"))
    read_options(write(tmp_path / "c.yml", **roots, geometric_augs="false", use_rot="true"))
    for keys in ({"use_hflip": "true"}, {"use_rot": "false"}, {"use_hflip": "true", "use_rot": "false"}):
        with pytest.raises(OptionError, match=r"test_1\.geometric_augs \(.*remove " + " and ".join(keys)):
            read_options(write(tmp_path / "d.yml", **roots, geometric_augs="true", **keys))


def test_each_folder_of_a_list_is_looked_for(folders):
    file = write(folders / "x.yml", dataroot_gt=f"[{folders}/rain/gt, {folders}/none]", dataroot_lq="[]")
    with pytest.raises(OptionError, match=r"dataroot_lq \(.*must be a string or a non-empty list of strings"):
        read_options(file)
    file = write(folders / "x.yml", dataroot_gt=f"[{folders}/rain/gt, {folders}/none]", dataroot_lq="[a, b]")
    with pytest.raises(OptionError, match=r"dataroot_gt\.1 \(.*none does not exist"):
        read_options(file, check_files=True)
