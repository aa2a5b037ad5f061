"""FIFOs, devices, links to nothing and to themselves, templates without end: named and left out or refused, and never
waited for."""

import json
import logging
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from basicsr.archs import build_network
from basicsr.cli import main
from basicsr.data import build_dataset
from basicsr.data.data_util import image_names
from basicsr.data.preparation import create_lmdb, make_lr
from basicsr.utils.file_client import FileClient, _close_environments
from basicsr.utils.filename_template import is_filename_template
from basicsr.utils.files import kind_of, read_file, require_writable
from basicsr.utils.img_util import imread
from basicsr.utils.misc import make_exp_dirs, scandir
from basicsr.utils.options.check import check_options
from basicsr.utils.options.errors import Marks, OptionError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
SECONDS = 30


@pytest.fixture(autouse=True)
def _deadline():
    """A test that waits for a FIFO fails."""

    def give_up(number, frame):
        raise AssertionError(f"still waiting after {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(logging.getLogger("basicsr"), "warning", found.append)
    return found


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((16, 16, 3), 99, np.uint8))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two images, one of them in a sub-folder, and odd entries beside them."""
    root = tmp_path / "in"
    picture(root / "fine.png")
    picture(root / "sub" / "deep.png")
    os.mkfifo(root / "fifo.png")
    os.mkfifo(root / "sub" / "pipe.txt")
    (root / "link.png").symlink_to("fine.png")
    (root / "nothing.png").symlink_to("absent.png")
    (root / "loop.png").symlink_to("loop2.png")
    (root / "loop2.png").symlink_to("loop.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "sub" / "up").symlink_to(root)
    return root


def test_what_is_not_a_file_is_listed_by_name_only(folder):
    skipped = {}
    names = list(scandir(str(folder), recursive=True, skipped=skipped.__setitem__))
    assert names == ["fine.png", "link.png", "sub/deep.png"]
    assert skipped == {
        "fifo.png": "a FIFO",
        "loop.png": "a link to itself",
        "loop2.png": "a link to itself",
        "nothing.png": "a link to nothing",
        "zero.png": "a device",
        "sub/pipe.txt": "a FIFO",
        "sub/up": "a link to a folder that it lies in",
    }
    assert list(scandir(str(folder))) == ["fine.png", "link.png"]


def test_a_data_set_leaves_them_out_with_a_warning(folder, warnings):
    options = {"name": "set", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": str(folder)}
    dataset = build_dataset(options)
    assert [Path(dataset[index]["lq_path"]).name for index in range(len(dataset))] == ["fine.png", "link.png"]
    (warning,) = warnings
    assert "in: left out since they are not files: fifo.png (a FIFO), loop.png (a link to itself)" in warning
    assert "zero.png (a device)" in warning
    warnings.clear()
    assert image_names(str(folder), recursive=True) == ["fine.png", "link.png", "sub/deep.png"]
    assert "and 1 more" in warnings[0]


def test_a_data_set_whose_folder_is_none(folder):
    options = {"name": "set", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": ""}
    for name, kind in (("fifo.png", "a FIFO"), ("fine.png", "a file"), ("nothing.png", "a link to nothing")):
        with pytest.raises(FileNotFoundError, match=rf"{name} is not a folder but {kind}"):
            build_dataset(options | {"dataroot_lq": str(folder / name)})


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    actual = os.scandir

    def refused(path):
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return actual(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match=r"the folder .*in cannot be read: Permission denied$"):
        image_names(str(folder))


def test_a_sub_folder_that_cannot_be_read_is_left_out(folder, monkeypatch, warnings):
    actual = os.scandir

    def refused(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return actual(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert image_names(str(folder), recursive=True) == ["fine.png", "link.png"]
    assert "and 1 more" in warnings[0]  # the folder comes last


def test_reading_does_not_wait(folder):
    for name in ("fifo.png", "zero.png", "loop.png", "nothing.png"):
        for read in (read_file, imread, FileClient("disk").get, FileClient("disk").get_text):
            with pytest.raises(OSError, match=rf"{name} is a .*, not a file"):
                read(folder / name)
    with pytest.raises(FileNotFoundError):
        read_file(folder / "absent.png")
    assert kind_of(folder) == "a folder" and kind_of(folder / "absent") == "absent"


def test_a_database_that_is_a_fifo(folder, tmp_path):
    (tmp_path / "a.lmdb").mkdir()
    os.mkfifo(tmp_path / "a.lmdb" / "data.mdb")
    with pytest.raises(FileNotFoundError, match=r"a\.lmdb is not an LMDB: it has no data\.mdb"):
        FileClient("lmdb", db_paths=str(tmp_path / "a.lmdb")).get("x")
    create_lmdb(str(folder), str(tmp_path / "b.lmdb"))
    assert FileClient("lmdb", db_paths=str(tmp_path / "b.lmdb")).get("link")
    _close_environments()


@pytest.fixture
def network(tmp_path) -> list[str]:
    arch = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
    torch.save({"params": build_network(arch).state_dict()}, tmp_path / "net.pth")
    return ["--arch", json.dumps(arch), "--weights", str(tmp_path / "net.pth"), "--device", "cpu"]


def test_upscale_goes_on_with_the_others(folder, tmp_path, network, capsys, warnings):
    assert main(["upscale", "-i", str(folder), "-o", str(tmp_path / "out"), *network]) == 1
    printed = capsys.readouterr()
    assert "3 of 8 images upscaled by 2" in printed.out and "5 images failed:" in printed.err
    for name, kind in (("fifo", "a FIFO"), ("loop2", "a link to itself"), ("zero", "a device")):
        assert f"{name}.png is {kind}, not a file" in printed.err
    written = sorted(path.name for path in (tmp_path / "out").rglob("*.png"))
    assert written == ["deep.png", "fine.png", "link.png"]
    assert any("pipe.txt is left out: it is a FIFO" in text for text in warnings)


def test_upscale_refuses_an_input_that_is_none_and_an_output_that_cannot_be(folder, tmp_path, network, capsys):
    assert main(["upscale", "-i", str(folder / "fifo.png"), "-o", str(tmp_path / "out"), *network]) == 2
    assert "fifo.png is a FIFO, neither an image nor a folder" in capsys.readouterr().err
    blocked = folder / "fine.png" / "out"
    assert main(["upscale", "-i", str(folder / "fine.png"), "-o", str(blocked), *network]) == 2
    assert f"error: nothing can be written to the folder {blocked}: Not a directory" in capsys.readouterr().err


def test_a_run_whose_folder_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    root = str(tmp_path / "file" / "experiments" / "run")
    for is_train, key in ((True, "experiments_root"), (False, "results_root")):
        with pytest.raises(
            OptionError, match=rf"^path\.{key}: nothing can be written to the folder .*experiments: Not a"
        ):
            make_exp_dirs({"is_train": is_train, "path": {key: root}})
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize(
    "template",
    ["{:>99999999999}", "{:0>99999999999}x4", "{:.99999999999}", "{:{}}", "{}{}", "{", "x4", "{.__class__}", "{0[1]}"]
    + ["{!r:>9999999999}", "{scale}", "{:9999}"],
)
def test_templates_without_end_are_refused(tmp_path, template):
    assert not is_filename_template(template)
    opt = {"name": "set", "type": "PairedImageDataset", "phase": "val", "scale": 1, "filename_tmpl": template}
    picture(tmp_path / "in" / "a.png")
    opt |= {"dataroot_gt": str(tmp_path / "in"), "dataroot_lq": str(tmp_path / "in")}
    with pytest.raises(ValueError, match=r"the template of file names '.*' must hold \{\} once"):
        build_dataset(opt)
    whole = {"name": "n", "model_type": "SRModel", "scale": 1, "num_gpu": 0, "network_g": {"type": "EDSR"}}
    with pytest.raises(OptionError, match=r"datasets\.test\.filename_tmpl: must hold \{\} once"):
        check_options({**whole, "datasets": {"test": {k: v for k, v in opt.items() if k != "phase"}}}, Marks(), False)
    if template != "{scale}":
        with pytest.raises(ValueError, match=r"must hold \{\} once, and may hold \{scale\}"):
            make_lr(str(tmp_path / "in"), str(tmp_path / "lr"), [2], filename_tmpl=f"{template}{{scale}}")


def test_useful_templates_are_taken():
    for template in ("{}", "{}x4", "a_{}", "{:0>4}", "{0}x2", "{:>8s}", "{{}}{}"):
        assert is_filename_template(template), template
    assert is_filename_template("{}x{scale}", ("scale",)) and not is_filename_template("{scale}", ("scale",))
