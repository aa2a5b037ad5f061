"""The pictures that validations and tests save: where they lie, and where they must never lie."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from basicsr.data import build_dataloader, build_dataset
from basicsr.models.validation import ValidationMixin
from basicsr.utils.file_client import _close_environments
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.options.check import check_options
from basicsr.utils.options.errors import Marks, OptionError
from basicsr.utils.paths import path_inside

PSNR = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}


class Recipe(ValidationMixin):
    """A recipe whose result is its input."""

    def __init__(self, root: Path, is_train: bool, **val) -> None:
        super().__init__()
        folders = {"visualization": str(root / "run" / "visualization"), "models": str(root / "run" / "models")}
        folders |= {"experiments_root": str(root / "run"), "results_root": str(root / "run")}
        self.opt = {"name": "run", "is_train": is_train, "dist": False, "rank": 0, "path": folders, "val": val}

    def feed_data(self, data: dict) -> None:
        self.lq = data["lq"]

    def test(self) -> None:
        self.output = self.lq

    def get_current_visuals(self) -> dict[str, torch.Tensor]:
        return {"lq": self.lq, "result": self.output, "gt": self.output}


def loader_of(folder: Path, names: list[str], dataset: str = "set", keys: list[str] | None = None):
    """A set of grey images, each of its own value; with ``keys`` in a database."""
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((4, 4, 3), value, np.uint8))
    opt = {"name": dataset, "type": "SingleImageDataset", "phase": "val", "dataroot_lq": str(folder)}
    if keys:
        opt |= {"dataroot_lq": f"{folder}.lmdb", "io_backend": {"type": "lmdb"}}
        make_lmdb_from_imgs(str(folder), f"{folder}.lmdb", names, keys)
    return build_dataloader(build_dataset(opt), opt)


def pictures(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("key", ["../../../x", "{root}/x", "a/../../../../x"])
def test_keys_of_a_database_do_not_lead_out_of_the_folder(tmp_path, is_train, key):
    key = key.format(root=tmp_path)
    loader = loader_of(tmp_path / "in" / "set", ["a.png", "b.png"], keys=["a/fine", key])
    recipe = Recipe(tmp_path / "out", is_train)
    with pytest.raises(ValueError, match=r"^set, image .*: '.*' would be written outside .*visualization"):
        recipe.validation(loader, 8, None, save_img=True)
    wanted = "a/fine/fine_8.png" if is_train else "set/a/fine_run.png"
    assert {name for name in pictures(tmp_path) if not name.startswith("in/")} == {f"out/run/visualization/{wanted}"}
    _close_environments()


def test_one_function_makes_the_paths(tmp_path):
    assert path_inside(tmp_path, "set", "a/b_1.png") == tmp_path / "set" / "a" / "b_1.png"
    assert path_inside(tmp_path, "..a", "b..", "c..d/...png").is_relative_to(tmp_path)
    for parts in (("..",), ("a", "../b"), ("a", "b/../../../c"), ("/a",), ("a", "/b"), ("a\0b",)):
        with pytest.raises(ValueError, match="would be written outside"):
            path_inside(tmp_path, *parts)


def test_names_of_data_sets_and_suffixes_do_not_lead_out_either(tmp_path):
    (tmp_path / "lq").mkdir()
    cv2.imwrite(str(tmp_path / "lq" / "a.png"), np.zeros((4, 4, 3), np.uint8))
    network = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3}
    dataset = {"name": "../out", "type": "SingleImageDataset", "dataroot_lq": str(tmp_path / "lq")}
    opt = {"name": "n", "model_type": "SRModel", "scale": 4, "num_gpu": 0, "network_g": network}
    opt |= {"datasets": {"test": dataset}, "val": {"suffix": "/../../x"}, "path": {"pretrain_network_g": "x.pth"}}
    with pytest.raises(OptionError) as error:
        check_options(opt, Marks(), False)
    for sentence in ("datasets.test.name: must serve as the name of a folder", "val.suffix: must serve as the name"):
        assert sentence in str(error.value)


def test_two_validation_sets_with_equal_names_keep_their_pictures(tmp_path):
    """The first has BasicSR's path; the other's pictures lie in its own folder, where they would replace one."""
    one = loader_of(tmp_path / "in" / "one", ["a.png", "b.png"], "one")
    two = loader_of(tmp_path / "in" / "two", ["x.png", "y.png", "A.png", "b.png"], "two")
    recipe = Recipe(tmp_path / "out", True, metrics=PSNR)
    root = tmp_path / "out" / "run" / "visualization"
    for iteration in (4, 8):
        for loader in (one, two):
            recipe.validation(loader, iteration, None, save_img=True)
        wanted = [f"{name}/{name}" for name in ("a", "b", "x", "y")] + ["two/A/A", "two/b/b"]
        found = [name for name in pictures(root) if name.endswith(f"_{iteration}.png")]
        assert found == sorted(f"{name}_{iteration}.png" for name in wanted)
        for name, value in (("a/a", 0), ("b/b", 1), ("two/A/A", 2), ("two/b/b", 3), ("x/x", 0)):
            assert (cv2.imread(str(root / f"{name}_{iteration}.png")) == value).all(), name


def test_a_test_has_a_folder_for_each_set(tmp_path):
    recipe = Recipe(tmp_path / "out", False)
    for dataset in ("one", "two"):
        loader = loader_of(tmp_path / "in" / dataset, ["a.png"], dataset)
        recipe.validation(loader, "run", None, save_img=True)
    assert pictures(tmp_path / "out" / "run" / "visualization") == ["one/a_run.png", "two/a_run.png"]
