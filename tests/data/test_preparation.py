"""The preparation commands, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr.data.preparation import create_lmdb, extract_subimages, generate_meta_info, make_lr
from basicsr.utils.file_client import FileClient

ROOT = Path(__file__).resolve().parents[2]


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), _image(26, 31))
    cv2.imwrite(str(folder / "b.c.bmp"), _image(24, 24, 1))
    (folder / "notes.txt").write_text("not an image")
    return folder


def _command(name: str, *arguments) -> subprocess.CompletedProcess:
    # From another folder, with the isolated mode's empty path: the script itself must find its checkout.
    script = str(ROOT / "scripts" / "data_preparation" / f"{name}.py")
    return subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True, cwd="/")


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_sub_images_restart_and_failures(photos, tmp_path):
    out = tmp_path / "sub"
    (photos / "bad.png").write_bytes((photos / "a.png").read_bytes()[:100])
    arguments = ("--input", photos, "--output", out, "--crop-size", 16, "--step", 8, "--thresh-size", 2)
    done = _command("extract_subimages", *arguments)
    assert done.returncode == 1 and "1 images could not be used" in done.stderr and "bad.png" in done.stderr
    # a: rows 0, 8 (2 left over: not worth it), columns 0, 8, 15; b.c: 0, 8 both ways
    names = [f"a_s{i:03d}.png" for i in range(1, 7)] + [f"b.c_s{i:03d}.png" for i in range(1, 5)]
    assert _visible(out) == names
    img = cv2.imread(str(photos / "a.png"))
    corners = [(top, left) for top in (0, 8) for left in (0, 8, 15)]
    for name, (top, left) in zip(names, corners):
        np.testing.assert_array_equal(cv2.imread(str(out / name)), img[top : top + 16, left : left + 16])

    kept = (out / names[0]).stat().st_mtime_ns
    (out / names[1]).unlink()
    (photos / "bad.png").unlink()
    assert _command("extract_subimages", *arguments).returncode == 0
    assert _visible(out) == names and (out / names[0]).stat().st_mtime_ns == kept


def test_sub_images_of_lr_are_called_like_gt(tmp_path):
    (tmp_path / "lr").mkdir()
    cv2.imwrite(str(tmp_path / "lr" / "x4_0001x4.png"), _image(8, 8))
    assert extract_subimages(str(tmp_path / "lr"), str(tmp_path / "sub"), 8, 8, filename_tmpl="{}x4") == []
    assert _visible(tmp_path / "sub") == ["x4_0001_s001.png"]
    with pytest.raises(ValueError, match="x4_0001x4.png is not named by the template '{}x3'"):
        extract_subimages(str(tmp_path / "lr"), str(tmp_path / "sub3"), 8, 8, filename_tmpl="{}x3")


def test_what_is_in_the_way_of_an_output_folder_is_named(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="nothing can be written to the folder .*file/x: Not a directory"):
        extract_subimages(str(photos), str(tmp_path / "file" / "x"), 24, 24)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "..preparation.json.unfinished").write_text("{")
    assert extract_subimages(str(photos), str(tmp_path / "sub"), 24, 24) == [], "a start that was killed"
    (tmp_path / "sub" / ".preparation.json").write_text("{")
    with pytest.raises(ValueError, match="sub/.preparation.json, how the folder was made, is damaged .*; remove the"):
        extract_subimages(str(photos), str(tmp_path / "sub"), 24, 24)


def test_sub_images_refuse_other_settings_small_images_and_collisions(photos, tmp_path):
    assert extract_subimages(str(photos), str(tmp_path / "sub"), 24, 24) == []
    with pytest.raises(ValueError, match="sub was made with .*'crop_size': 24.* not with .*'crop_size': 16"):
        extract_subimages(str(photos), str(tmp_path / "sub"), 16, 24)
    (failure,) = extract_subimages(str(photos), str(tmp_path / "large"), 25, 24)
    assert "b.c.bmp: 24×24 pixels" in failure and "no sub-image of 25×25" in failure
    with pytest.raises(ValueError, match="photos holds files of another origin"):
        extract_subimages(str(photos), str(photos), 24, 24)
    with pytest.raises(ValueError, match="crop_size 0 and step 8 must be positive"):
        extract_subimages(str(photos), str(tmp_path / "none"), 0, 8)
    cv2.imwrite(str(photos / "a.bmp"), _image(24, 24))
    with pytest.raises(ValueError, match="a.bmp and a.png would get the same name a"):
        extract_subimages(str(photos), str(tmp_path / "none"), 24, 24)


def test_lr_command(photos, tmp_path):
    arguments = ("--input", photos, "--output", tmp_path / "lr", "--scale", 2, 3)
    assert _command("make_lr", *arguments).returncode == 0
    assert _visible(tmp_path / "lr") == ["X2", "X3"]
    assert _visible(tmp_path / "lr" / "X3") == ["ax3.png", "b.cx3.png"]
    assert cv2.imread(str(tmp_path / "lr" / "X3" / "ax3.png")).shape == (8, 10, 3)
    assert cv2.imread(str(tmp_path / "lr" / "X2" / "ax2.png")).shape == (13, 15, 3)
    kept = (tmp_path / "lr" / "X2" / "ax2.png").stat().st_mtime_ns
    (tmp_path / "lr" / "X3" / "ax3.png").unlink()
    assert _command("make_lr", *arguments).returncode == 0
    assert _visible(tmp_path / "lr" / "X3") == ["ax3.png", "b.cx3.png"]
    assert (tmp_path / "lr" / "X2" / "ax2.png").stat().st_mtime_ns == kept


def test_lr_with_cut_gt_and_own_names(photos, tmp_path):
    failures = make_lr(
        str(photos),
        str(tmp_path / "lr"),
        [2, 4],
        filename_tmpl="{}",
        gt_output_folder=str(tmp_path / "gt"),
        num_workers=2,
    )
    assert failures == []
    gt = cv2.imread(str(tmp_path / "gt" / "a.png"))
    np.testing.assert_array_equal(gt, cv2.imread(str(photos / "a.png"))[:24, :28])
    assert cv2.imread(str(tmp_path / "lr" / "X4" / "a.png")).shape == (6, 7, 3)
    assert cv2.imread(str(tmp_path / "lr" / "X2" / "a.png")).shape == (12, 14, 3)


def test_lr_errors(photos, tmp_path):
    cv2.imwrite(str(photos / "tiny.png"), _image(2, 9))
    (failure,) = make_lr(str(photos), str(tmp_path / "lr"), [3])
    assert "tiny.png: 2×9 pixels" in failure and "shrunk by 3" in failure
    with pytest.raises(ValueError, match=r"scales must be 2 or more, not \[1, 2\]"):
        make_lr(str(photos), str(tmp_path / "lr"), [1, 2])
    done = _command("make_lr", "--input", tmp_path / "nowhere", "--output", tmp_path / "x")
    assert done.returncode == 1 and "nowhere does not exist" in done.stderr and "Traceback" not in done.stderr


def test_lr_reproduces_matlabs_files(shared_data, tmp_path):
    """The LR images of Set5 come from MATLAB's imresize."""
    assert make_lr(str(shared_data / "sr" / "Set5" / "HR"), str(tmp_path), [2, 3, 4]) == []
    originals = sorted((shared_data / "sr" / "Set5" / "LR_bicubic").glob("X*/*.png"))
    assert len(originals) == 15
    for original in originals:
        ours = tmp_path / original.parent.name / original.name
        np.testing.assert_array_equal(cv2.imread(str(ours)), cv2.imread(str(original)))


def test_meta_info_command(photos, tmp_path):
    (photos / "deep").mkdir()
    cv2.imwrite(str(photos / "deep" / "grey.png"), _image(5, 6)[..., 0])
    out = tmp_path / "lists" / "meta.txt"
    assert _command("generate_meta_info", "--input", photos, "--output", out).returncode == 0
    assert out.read_text() == "a.png (26,31,3)\nb.c.bmp (24,24,3)\ndeep/grey.png (5,6,1)\n"
    written = out.stat().st_mtime_ns
    assert generate_meta_info(str(photos), str(out)) == []
    assert out.stat().st_mtime_ns == written
    (photos / "deep" / "grey.png").unlink()
    with pytest.raises(FileExistsError, match="meta.txt exists and lists other images"):
        generate_meta_info(str(photos), str(out))


def test_meta_info_with_damaged_images_is_not_written(photos, tmp_path):
    (photos / "bad.png").write_bytes(b"bad")
    (failure,) = generate_meta_info(str(photos), str(tmp_path / "meta.txt"))
    assert "bad.png" in failure and not (tmp_path / "meta.txt").exists()


def test_lmdb_command(photos, tmp_path):
    out = tmp_path / "photos.lmdb"
    (photos / "bad.png").write_bytes(b"bad")
    done = _command("create_lmdb", "--input", photos, "--output", out)
    assert done.returncode == 1 and "bad.png" in done.stderr and not out.exists()
    (photos / "bad.png").unlink()
    assert _command("create_lmdb", "--input", photos, "--output", out).returncode == 0
    assert (out / "meta_info.txt").read_text() == "a.png (26,31,3) 1\nb.c.png (24,24,3) 1\n"
    content = FileClient("lmdb", db_paths=str(out)).get("b.c")
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.imread(str(photos / "b.c.bmp"))
    )
    written = (out / "data.mdb").stat().st_mtime_ns
    create_lmdb(str(photos), str(out))
    assert (out / "data.mdb").stat().st_mtime_ns == written
    (photos / "a.png").unlink()
    with pytest.raises(FileExistsError, match="photos.lmdb exists and has other images"):
        create_lmdb(str(photos), str(out))


def test_a_jpeg_is_kept_as_datasets_see_it(tmp_path):
    """A photograph taken upright: datasets turn it by its EXIF orientation, and so must what is made from it."""
    (tmp_path / "in").mkdir()
    jpeg = cv2.imencode(".jpg", _image(16, 24))[1].tobytes()
    exif = (
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    )
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    (tmp_path / "in" / "p.jpg").write_bytes(turned)
    assert extract_subimages(str(tmp_path / "in"), str(tmp_path / "sub"), 16, 8) == []
    seen = cv2.imread(str(tmp_path / "in" / "p.jpg"))
    assert seen.shape == (24, 16, 3)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "sub" / "p_s002.png")), seen[8:])
