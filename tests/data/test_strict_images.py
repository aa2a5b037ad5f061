"""What can be decoded and is refused nevertheless, everywhere alike: by data sets, ``upscale`` and preparation."""

import builtins
import io
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from basicsr.archs import build_network
from basicsr.cli import main
from basicsr.data import build_dataset, storage
from basicsr.data.memmap.images import INDEX_FILE, PIXELS_FILE, Index
from basicsr.data.memmap.writer import create_memmap
from basicsr.data.preparation import create_lmdb, extract_subimages, generate_meta_info, make_lr
from basicsr.engine.restore.image_restorer import read_image
from basicsr.utils import image_check
from basicsr.utils.img_util import imfrombytes, imread, imwrite

SIDE = 64


def smooth() -> np.ndarray:
    """(64, 64, 3) uint8 with structure, so that JPEG data are long."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    img = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    img[0, 0], img[0, 1] = 0, 255
    return img


def tiff(img: np.ndarray) -> bytes:
    """A TIFF file of any pixel type."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, img[..., ::-1], photometric="rgb")
    return buffer.getvalue()


def jpeg(progressive: bool = False) -> bytes:
    return cv2.imencode(".jpg", smooth(), [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])[1].tobytes()


def damaged(content: bytes, where: float = 0.6, with_bytes: bytes = b"\xff\xff\xff\xff\xff\xff\xff\xff") -> bytes:
    """A JPEG file whose middle is not what it was; its end is."""
    start = int(len(content) * where)
    return content[:start] + with_bytes + content[start + len(with_bytes) :]


def with_value(value: float) -> np.ndarray:
    img = smooth().astype(np.float32) / 255
    img[3, 5, 1] = value
    return img


UNIT = smooth() / 255
# name of the file, its bytes, and the reason for which it is refused
REFUSED = {
    "float in 0…255": ("a.tif", tiff(smooth().astype(np.float32)), "of type float32, reach from 0 to 255, and floats"),
    "double in 0…255": ("a.tif", tiff(smooth().astype(np.float64)), "of type float64, reach from"),
    "float above 1": ("a.tif", tiff(with_value(1.01)), "reach from 0 to 1.01, and floats must be in"),
    "float below 0": ("a.tif", tiff(with_value(-0.01)), "reach from -0.01 to 1, and floats must be in"),
    "NaN": ("a.tif", tiff(with_value(np.nan)), "1 of its 12288 values (float32) are NaN or infinite"),
    "infinite": ("a.tif", tiff(with_value(-np.inf)), "1 of its 12288 values (float32) are NaN or infinite"),
    "int32": ("a.tif", tiff(smooth().astype(np.int32) * 1000), "of type int32, from 0 to 255000; an image has"),
    "uint32": ("a.tif", tiff(smooth().astype(np.uint32)), "of type uint32, from 0 to 255; an image has pixels of"),
    "int16": ("a.tif", tiff(smooth().astype(np.int16) - 100), "of type int16, from -100 to 155; an image has"),
    "int8": ("a.tif", tiff((smooth() // 2).astype(np.int8)), "of type int8, from 0 to 127; an image has"),
    "JPEG, damaged": ("a.jpg", damaged(jpeg()), "its JPEG data are damaged (the decoder says: "),
    "JPEG, progressive, damaged": (
        "a.jpg",
        damaged(jpeg(True), 0.5, b"\xaa" * 8),
        "its JPEG data are damaged (the decoder says",
    ),
    "JPEG with an early end": ("a.jpg", damaged(jpeg(), 0.5, b"\xff\xd9"), "its JPEG data are damaged (the decoder"),
}
READ = {
    "float": ("a.tif", tiff(UNIT.astype(np.float32)), UNIT),
    "double": ("a.tif", tiff(UNIT), UNIT),
    "float that rounding left": ("a.tif", tiff(with_value(1.003)), with_value(1.003)),
    "16 bits": ("a.png", cv2.imencode(".png", smooth().astype(np.uint16) * 257)[1].tobytes(), UNIT),
    "8 bits": ("a.png", cv2.imencode(".png", smooth())[1].tobytes(), UNIT),
    "JPEG": ("a.jpg", jpeg(), cv2.imdecode(np.frombuffer(jpeg(), np.uint8), 1) / 255),
}


def written(root: Path, name: str, content: bytes) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    return root


def options(folder: Path, kind: str, **changes) -> dict:
    """A training or validation set of one pair of equal pictures."""
    opt = {"name": "set", "type": "PairedImageDataset", "phase": kind, "scale": 1, "gt_size": 32}
    return {**opt, "dataroot_gt": str(folder), "dataroot_lq": str(folder), "io_backend": {"type": "disk"}, **changes}


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> list[str]:
    """Arguments of ``basicsr upscale`` that name a network."""
    arch = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save({"params": build_network(arch).state_dict()}, path)
    return ["--arch", json.dumps(arch), "--weights", str(path), "--device", "cpu"]


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_training_validation_and_upscale_alike(tmp_path, kind, network, capsys):
    name, content, reason = REFUSED[kind]
    folder = written(tmp_path / "in", name, content)
    for phase in ("train", "val"):
        with pytest.raises(ValueError, match=rf"^cannot read the gt image .*in.{name}: ") as error:
            build_dataset(options(folder, phase))[0]
        assert reason in str(error.value)
    single = {"name": "set", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": str(folder)}
    with pytest.raises(ValueError, match=rf"^cannot read the lq image .*in.{name}: ") as error:
        build_dataset(single)[0]
    assert reason in str(error.value)
    imwrite(smooth(), folder / "fine.png")
    assert main(["upscale", "-i", str(folder), "-o", str(tmp_path / "out"), *network]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 images upscaled" in printed.out
    assert f"{name}: cannot read the image" in printed.err and reason in printed.err


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_preparation(tmp_path, kind):
    name, content, reason = REFUSED[kind]
    folder = str(written(tmp_path / "in", name, content))
    with pytest.raises(ValueError, match=rf"in.{name}: ") as error:
        create_memmap(folder, str(tmp_path / "out.memmap"))
    assert reason in str(error.value)
    with pytest.raises(ValueError, match=rf"in.{name}: ") as error:
        create_lmdb(folder, str(tmp_path / "out.lmdb"))
    assert reason in str(error.value)
    for failures in (
        generate_meta_info(folder, str(tmp_path / "list.txt")),
        extract_subimages(folder, str(tmp_path / "sub"), 32, 32),
        make_lr(folder, str(tmp_path / "lr"), [2]),
    ):
        (failure,) = failures
        assert name in failure and reason in failure


@pytest.mark.parametrize("kind", READ)
def test_read_in_training_validation_and_upscale_alike(tmp_path, kind, network):
    name, content, expected = READ[kind]
    folder = written(tmp_path / "in", name, content)
    sample = build_dataset(options(folder, "val"))[0]
    for key in ("gt", "lq"):
        np.testing.assert_allclose(sample[key].numpy().transpose(1, 2, 0)[..., ::-1], expected, rtol=0, atol=1e-6)
    img = read_image(folder / name)
    np.testing.assert_allclose(img / np.iinfo(img.dtype).max, np.clip(expected, 0, 1), rtol=0, atol=1e-5)
    assert main(["upscale", "-i", str(folder), "-o", str(tmp_path / "out"), *network]) == 0
    wanted = np.uint8 if kind in ("8 bits", "JPEG") else np.uint16  # PNG files hold no floats
    assert imread(tmp_path / "out" / "a.png", "unchanged").dtype == wanted


def test_floats_with_alpha_become_16_bits(tmp_path):
    img = np.dstack([smooth(), np.full((SIDE, SIDE), 51, np.uint8)])
    (tmp_path / "a.tif").write_bytes(cv2.imencode(".tif", img.astype(np.float32) / 255)[1].tobytes())
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.uint16 and (read == img.astype(np.uint16) * 257).all()


def test_floats_are_not_written_as_png(tmp_path):
    """OpenCV would round them to black and white."""
    folder = str(written(tmp_path / "in", "a.tif", READ["float"][1]))
    with pytest.raises(
        ValueError, match=r"a\.tif has pixels of type float32, which PNG files cannot hold; save it with"
    ):
        create_lmdb(folder, str(tmp_path / "out.lmdb"))
    for failures in (extract_subimages(folder, str(tmp_path / "s"), 32, 32), make_lr(folder, str(tmp_path / "l"), [2])):
        assert "which PNG files cannot hold" in failures[0]
    assert generate_meta_info(folder, str(tmp_path / "list.txt")) == []
    assert (tmp_path / "list.txt").read_text() == "a.tif (64,64,3)\n"
    create_memmap(folder, str(tmp_path / "out.memmap"))
    stored = build_dataset(options(tmp_path / "out.memmap", "val", io_backend={"type": "memmap"}))
    assert torch.equal(stored[0]["gt"], build_dataset(options(tmp_path / "in", "val"))[0]["gt"])


def test_floats_of_decoded_storage_are_looked_at_once(tmp_path, monkeypatch):
    """Storage that an older release has made, or someone else."""
    folder = written(tmp_path / "in", "a.tif", READ["float"][1])
    stored = tmp_path / "out.memmap"
    create_memmap(str(folder), str(stored))
    seen = []
    check = storage.require_pixels
    monkeypatch.setattr(storage, "require_pixels", lambda img: seen.append(1) or check(img))
    dataset = build_dataset(options(stored, "train", io_backend={"type": "memmap"}))
    for _ in range(3):
        dataset[0]
    assert len(seen) == 2  # LQ and GT
    index = Index.read(stored / INDEX_FILE)
    with open(stored / PIXELS_FILE, "r+b") as file:
        file.seek(index.images[0].offset + 400)
        file.write(np.float32(np.nan).tobytes())
    dataset = build_dataset(options(stored, "val", io_backend={"type": "memmap"}))
    for _ in range(2):  # also when it is read again
        with pytest.raises(ValueError, match=r"cannot read the gt image .*a\.tif: 1 of its 12288 values"):
            dataset[0]


def test_a_jpeg_file_is_checked_once_in_a_process(tmp_path, monkeypatch):
    folder = written(tmp_path / "in", "a.jpg", jpeg())
    imwrite(smooth(), folder / "b.png")
    seen = []
    check = storage.require_sound_jpeg
    monkeypatch.setattr(storage, "require_sound_jpeg", lambda content: seen.append(1) or check(content))
    dataset = build_dataset(options(folder, "val"))
    for _ in range(3):
        dataset[0], dataset[1]
    assert len(seen) == 2  # LQ and GT of a.jpg; PNG files have checksums
    (folder / "a.jpg").write_bytes(damaged(jpeg()))
    dataset[0]  # not looked at again
    dataset = build_dataset(options(folder, "val"))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a\.jpg: its JPEG data are damaged"):
            dataset[0]


def test_the_check_can_be_switched_off(tmp_path):
    folder = written(tmp_path / "in", "a.jpg", damaged(jpeg()))
    dataset = build_dataset(options(folder, "val", io_backend={"type": "disk", "strict": False}))
    assert dataset[0]["gt"].shape == (3, SIDE, SIDE)
    written(folder, "a.jpg", REFUSED["JPEG with an early end"][1][:300])
    with pytest.raises(ValueError, match=r"a\.jpg: \d+ bytes cannot be decoded"):  # a part of a file is no image
        dataset[0]


def test_what_the_strict_decoder_cannot_read_is_left_to_opencv():
    """Odd subsampling is not damage."""
    content = bytearray(jpeg())
    frame = content.index(b"\xff\xc0")
    content[frame + 11] = 0x41  # four columns of brightness for one of colour; the data no longer fit
    image_check.require_sound_jpeg(b"\xff\xd8\xff")  # no header
    image_check.require_sound_jpeg(b"not a JPEG file")
    content[frame + 14] = 0x31
    image_check.require_sound_jpeg(bytes(content))


def test_without_the_decoder_there_is_a_warning(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging.getLogger("basicsr"), "warning", warnings.append)
    actual = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "simplejpeg":
            raise ImportError("No module named 'simplejpeg'")
        return actual(name, *args, **kwargs)

    image_check._strict_decoder.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    try:
        dataset = build_dataset(options(written(tmp_path / "in", "a.jpg", damaged(jpeg())), "val"))
        dataset[0], dataset[0]
    finally:
        image_check._strict_decoder.cache_clear()
    (warning,) = [text for text in warnings if "simplejpeg" in text]
    assert "JPEG files are not checked" in warning and "pip install simplejpeg" in warning


def test_plugins_may_read_what_is_no_image():
    """Labels and depth maps: BasicSR's function gives what the file holds, unless it is asked for [0, 1]."""
    labels = tiff(smooth().astype(np.int32) * 1000)
    assert imfrombytes(labels, "unchanged").max() == 255000
    with pytest.raises(ValueError, match="of type int32"):
        imfrombytes(labels, "unchanged", float32=True)


def test_most_damage_is_found():
    """Bytes in the middle replaced at random: JPEG has no checksums, and no decoder finds all of it."""
    rng = np.random.default_rng(0)
    whole, found = jpeg(), 0
    for _ in range(100):
        content = damaged(whole, rng.uniform(0.4, 0.9), rng.bytes(32))
        try:
            image_check.require_sound_jpeg(content)
        except ValueError:
            found += 1
    assert found > 60
    image_check.require_sound_jpeg(whole)
    buffer = io.BytesIO()
    Image.fromarray(smooth()).convert("CMYK").save(buffer, "JPEG")
    image_check.require_sound_jpeg(buffer.getvalue())
