"""``basicsr prepare``, as a user runs it."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from basicsr.cli import main
from basicsr.commands.preparation_steps import STEPS
from basicsr.data import build_dataset
from basicsr.data.layouts.sets import SETS
from basicsr.utils.options import read_options

ROOT = Path(__file__).resolve().parents[2]


def _save(path, height=12, width=14):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.name))
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def rain13k(tmp_path):
    source = tmp_path / "Datasets"
    for role in ("input", "target"):
        for name in ("1", "2"):
            _save(source / "train" / "Rain13K" / role / f"{name}.jpg")
        for test in ("Rain100L", "Test100"):
            _save(source / "test" / test / role / "7.png")
    return source


def test_a_set_and_the_lines_for_the_option_file(rain13k, tmp_path, capsys):
    target = tmp_path / "Rain13K"
    assert main(["prepare", "rain13k", str(rain13k), str(target), "--num-workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "train: 2 pairs; lq " in out and "test/Rain100L: 1 pairs; lq " in out
    datasets = yaml.safe_load(out.split("For the option file:\n")[1])["datasets"]
    assert list(datasets) == ["train", "val", "val_2"]
    assert [each["name"] for each in datasets.values()] == ["Rain13K", "Rain100L", "Test100"]
    assert datasets["val_2"]["dataroot_lq"] == str(target / "test" / "Test100" / "lq")
    assert [len(build_dataset({**each, "phase": "val", "scale": 1})) for each in datasets.values()] == [2, 1, 1]


def test_patches_and_storage(rain13k, tmp_path, capsys):
    target = tmp_path / "out"
    options = ["--patch-size", "8", "--overlap", "2", "--memmap", "--num-workers", "1"]
    assert main(["prepare", "Rain13K", str(rain13k), str(target), *options]) == 0
    out = capsys.readouterr().out
    assert "train: 2 pairs, 8 patches of 8 pixels (overlap 2); lq " in out
    train = yaml.safe_load(out.split("For the option file:\n")[1])["datasets"]["train"]
    assert train["io_backend"] == {"type": "memmap"}
    assert len(build_dataset({**train, "phase": "val", "scale": 1})) == 8


def test_unusable_images_are_listed_and_fail_the_command(rain13k, tmp_path, capsys):
    bad = rain13k / "train" / "Rain13K" / "input" / "2.jpg"
    bad.write_bytes(b"bad")
    target = tmp_path / "out"
    assert main(["prepare", "Rain13K", str(rain13k), str(target), "--lmdb", "--num-workers", "1"]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"1 images could not be used:\n  cannot read the image {bad}: ")
    train = yaml.safe_load(out.split("For the option file:\n")[1])["datasets"]["train"]
    assert train["dataroot_gt"] == str(target / "train" / "gt") and train["io_backend"] == {"type": "disk"}
    bad.write_bytes(bad.with_name("1.jpg").read_bytes())
    assert main(["prepare", "Rain13K", str(rain13k), str(target), "--lmdb", "--num-workers", "1"]) == 0
    assert (target / "train" / "gt.lmdb").is_dir()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["GoPro", "SOURCE", "TARGET"], "Datasets does not look like GoPro: "),
        (["Rain13K", "SOURCE", "SOURCE/out"], "which is not written to; name another"),
        (["Rain13K", "nowhere", "TARGET"], "the source nowhere does not exist"),
        (["Rain13K", "SOURCE", "TARGET", "--patch-size", "8", "--overlap", "8"], "the overlap must be smaller"),
    ],
)
def test_a_refusal_is_one_line(rain13k, tmp_path, capsys, arguments, message):
    replaced = {"SOURCE": str(rain13k), "TARGET": str(tmp_path / "out"), "SOURCE/out": f"{rain13k}/out"}
    assert main(["prepare", *(replaced.get(each, each) for each in arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (rain13k / "out").exists()


@pytest.mark.parametrize(
    "name, hint",
    [
        ("GoPr", "did you mean GoPro?"),
        ("sots-outdor", "did you mean SOTS-outdoor?"),
        ("subimage", "did you mean subimages?"),
    ],
)
def test_an_unknown_name(capsys, name, hint):
    with pytest.raises(SystemExit) as ended:
        main(["prepare", name, "a", "b"])
    assert ended.value.code == 2
    assert f"there is no data set or step '{name}'; {hint}" in capsys.readouterr().err


def test_help_names_everything(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in (*SETS, *STEPS))
    with pytest.raises(SystemExit):
        main(["prepare", "GoPro", "--help"])
    assert "--variant {blur,blur_gamma}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["prepare", "SIDD", "--help"])
    out = capsys.readouterr().out
    assert "--variant" not in out and "(default 512)" in out and "(default 128, or" in out


def test_the_documentation_has_every_set():
    page = (ROOT / "docs" / "data_preparation.md").read_text(encoding="utf-8")
    assert [name for name in SETS if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("base", ["derain", "deblur", "denoise_sidd", "dehaze"])
def test_option_files_name_the_folders_of_the_documentation(tmp_path, base):
    file = tmp_path / "test.yml"
    inherited = ROOT / "options" / "test" / "_base_" / f"{base}.yml"
    network = "network_g: {type: PReNet}\npath: {pretrain_network_g: x.pth}"
    file.write_text(f"_base_: {inherited}\nname: x\n{network}\n")
    options, notices = read_options(file, is_train=False)
    assert notices == []
    page = (ROOT / "docs" / "data_preparation.md").read_text(encoding="utf-8")
    for data in options["datasets"].values():
        root = data["dataroot_gt"].removesuffix("/gt")
        assert data["dataroot_lq"] == f"{root}/lq"
        which = root.split("/")[1]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{which}` |")]
        assert f"`{root}`" in row or f"`…/{data['name']}`" in row


def test_a_step_is_the_script_of_the_same_purpose(rain13k, tmp_path):
    photos = rain13k / "train" / "Rain13K" / "input"
    options = ["--input", str(photos), "--crop-size", "8", "--step", "4", "--num-workers", "1"]
    assert main(["prepare", "subimages", *options, "--output", str(tmp_path / "a")]) == 0
    script = ROOT / "scripts" / "data_preparation" / "extract_subimages.py"
    command = [sys.executable, str(script), *options, "--output", str(tmp_path / "b")]
    subprocess.run(command, check=True, cwd="/")
    made = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in "ab"]
    assert made[0] == made[1] and len(made[0]) == 2 * 2 * 3


@pytest.mark.parametrize("step", ["lr", "meta-info", "lmdb", "memmap"])
def test_the_other_steps(rain13k, tmp_path, step):
    output = tmp_path / f"out.{step if step in ('lmdb', 'memmap') else 'txt'}"
    photos = str(rain13k / "train" / "Rain13K" / "target")
    assert main(["prepare", step, "--input", photos, "--output", str(output), "--num-workers", "1"]) == 0
    assert output.exists()


def test_a_step_that_fails(tmp_path, capsys):
    arguments = ["--input", str(tmp_path / "nowhere"), "--output", str(tmp_path / "x")]
    assert main(["prepare", "lr", *arguments]) == 1
    assert "error: the folder" in capsys.readouterr().err
