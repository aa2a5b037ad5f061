"""Images of every odd kind: each is read as documented in `imfrombytes`, or refused with a sentence that names it."""

import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from basicsr.data import build_dataset
from basicsr.utils.file_client import FileClient, _close_environments
from basicsr.utils.img_util import imread
from basicsr.utils.lmdb_util import make_lmdb_from_imgs, read_source

HEIGHT, WIDTH = 24, 32


def picture() -> np.ndarray:
    """(24, 32, 3) RGB uint8, smooth, different in every channel and under every rotation."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 10, columns * 7, (rows + columns) * 4], axis=-1).astype(np.uint8)


RGB = picture()
OTHER = Image.fromarray(255 - RGB)


def encode(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[..., None], 3, axis=2)


def with_thumbnail(jpeg: bytes) -> bytes:
    """The JPEG with another whole one, with an end mark of its own, in its header."""
    thumbnail = encode(RGB[:8, :8], "JPEG")
    return jpeg[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail + jpeg[2:]


FINE = {"quality": 98, "subsampling": 0}
JPEG = encode(RGB, "JPEG", **FINE)
ANIMATED = {"save_all": True, "append_images": [OTHER]}
PALETTE = Image.fromarray(RGB).quantize(64)
PALETTE_RGB = np.asarray(PALETTE.convert("RGB"))
WITH_ALPHA = Image.fromarray(np.dstack([RGB, np.full((HEIGHT, WIDTH), 99, np.uint8)]))
GREY_ALPHA = Image.merge("LA", [Image.fromarray(RGB).convert("L"), Image.new("L", (WIDTH, HEIGHT), 99)])
BILEVEL = Image.fromarray(RGB).convert("1")
DEEP = RGB.astype(np.uint16) * 256 + 100

# name of the file, its bytes, the picture that a dataset gets (RGB in [0, 255]), and the tolerance
READ = {
    "PNG": ("a.png", encode(RGB, "PNG"), RGB, 0),
    "JPEG named PNG": ("a.png", JPEG, RGB, 8),
    "PNG named JPEG": ("a.jpg", encode(RGB, "PNG"), RGB, 0),
    "16 bits": ("a.png", cv2.imencode(".png", DEEP[..., ::-1])[1].tobytes(), DEEP / 65535 * 255, 1e-3),
    "16 bits of grey": ("a.png", cv2.imencode(".png", DEEP[..., 0])[1].tobytes(), DEEP[..., :1] / 65535 * 255, 1e-3),
    "CMYK": ("a.jpg", encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", **FINE), RGB, 8),
    "palette": ("a.png", encode(PALETTE, "PNG"), PALETTE_RGB, 0),
    "palette with a hole": ("a.png", encode(PALETTE, "PNG", transparency=3), PALETTE_RGB, 0),
    "alpha": ("a.png", encode(WITH_ALPHA, "PNG"), RGB, 0),
    "alpha in WebP": ("a.webp", encode(WITH_ALPHA, "WEBP", lossless=True, exact=True), RGB, 0),
    "grey": ("a.png", encode(Image.fromarray(RGB).convert("L"), "PNG"), grey(RGB), 0),
    "grey and alpha": ("a.png", encode(GREY_ALPHA, "PNG"), grey(RGB), 0),
    "one bit": ("a.png", encode(BILEVEL, "PNG"), np.asarray(BILEVEL)[..., None] * 255.0, 0),
    "animated PNG: the first": ("a.png", encode(RGB, "PNG", **ANIMATED), RGB, 0),
    "TIFF of two pages: the first": ("a.tif", encode(RGB, "TIFF", **ANIMATED), RGB, 0),
    "BMP": ("a.bmp", encode(RGB, "BMP"), RGB, 0),
    "PPM": ("a.ppm", encode(RGB, "PPM"), RGB, 0),
    "bytes after the end": ("a.jpg", JPEG + bytes(50), RGB, 8),
    "a thumbnail inside": ("a.jpg", with_thumbnail(JPEG), RGB, 8),
    "progressive": ("a.jpg", encode(RGB, "JPEG", **FINE, progressive=True), RGB, 8),
    "EXIF turned JPEG": (
        "a.jpg",
        encode(np.rot90(RGB), "JPEG", **FINE, exif=exif(6)),
        RGB,
        8,
    ),
    "EXIF turned PNG": ("a.png", encode(np.rot90(RGB), "PNG", exif=exif(6)), RGB, 0),
}
if int(cv2.__version__.partition(".")[0]) >= 5:  # OpenCV 4 reads neither, or not in every build
    READ["animated WebP: the first"] = ("a.webp", encode(RGB, "WEBP", lossless=True, **ANIMATED), RGB, 0)


def cut(content: bytes, part: float) -> bytes:
    return content[: int(len(content) * part)]


LARGE = cv2.resize(RGB, (320, 240), interpolation=cv2.INTER_CUBIC)
LARGE_FILES = {
    kind: (f"a.{suffix}", encode(LARGE, kind.split()[0], **options))
    for kind, suffix, options in (
        ("PNG", "png", {}),
        ("JPEG", "jpg", {"quality": 95}),
        ("JPEG progressive", "jpg", {"quality": 95, "progressive": True}),
        ("WEBP", "webp", {"lossless": True}),
        ("TIFF", "tif", {}),
        ("BMP", "bmp", {}),
        ("PPM", "ppm", {}),
    )
}
REFUSED = {
    **{
        f"{kind} cut at {part}": (name, cut(content, part))
        for kind, (name, content) in LARGE_FILES.items()
        for part in (0.02, 0.5, 0.99)
    },
    **{f"{kind} of no bytes": (name, b"") for kind, (name, _) in LARGE_FILES.items()},
    "JPEG without its last byte": ("a.jpg", LARGE_FILES["JPEG"][1][:-1]),
    "JPEG cut after a thumbnail": ("a.jpg", cut(with_thumbnail(LARGE_FILES["JPEG"][1]), 0.7)),
    "text": ("a.png", b"not an image"),
    "SVG": ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>"),
    "HTML of a failed download": ("a.jpg", b"<!DOCTYPE html><html><body>404</body></html>"),
    "zeros": ("a.png", bytes(1000)),
    "PNG with a wrong checksum": ("a.png", LARGE_FILES["PNG"][1].replace(b"IDAT", b"IDAT\x55", 1)),
    "PNG of 4.6e18 pixels": ("a.png", png_header(2**31 - 1, 2**31 - 1)),
    "PNG of 3.6e9 pixels": ("a.png", png_header(60_000, 60_000)),
    "PNG of no pixels": ("a.png", png_header(0, 5)),
}


def paired(tmp_path: Path, name: str, content: bytes, **changes) -> dict:
    """Options of a data set of one pair, at scale 1, whose GT is the file."""
    for folder in ("gt", "lq"):
        (tmp_path / folder).mkdir()
    (tmp_path / "gt" / name).write_bytes(content)
    (tmp_path / "lq" / "a.png").write_bytes(encode(RGB, "PNG"))
    options = {"name": "test", "type": "PairedImageDataset", "phase": "val", "scale": 1}
    folders = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq")}
    return {**options, **folders, "io_backend": {"type": "disk"}, **changes}


@pytest.mark.parametrize("kind", READ)
def test_odd_images_are_read(tmp_path, kind):
    name, content, expected, tolerance = READ[kind]
    options = paired(tmp_path, name, content)
    expected = np.broadcast_to(expected, RGB.shape).astype(np.float64)
    single = {**options, "type": "SingleImageDataset", "dataroot_lq": options["dataroot_gt"]}
    for sample in (build_dataset(options)[0]["gt"], build_dataset(single)[0]["lq"]):
        found = sample.numpy().transpose(1, 2, 0) * 255.0
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance + 1e-4)


@pytest.mark.parametrize("kind", REFUSED)
def test_damaged_images_are_refused_by_name(tmp_path, kind):
    name, content = REFUSED[kind]
    options = paired(tmp_path, name, content)
    with pytest.raises(ValueError, match=rf"cannot read the gt image .*gt.{name}: \d+ bytes cannot be decoded"):
        build_dataset(options)[0]
    single = {**options, "type": "SingleImageDataset", "dataroot_lq": options["dataroot_gt"]}
    with pytest.raises(ValueError, match=rf"cannot read the lq image .*gt.{name}: \d+ bytes cannot be decoded"):
        build_dataset(single)[0]
    for flag in ("color", "grayscale", "unchanged", "oriented"):
        with pytest.raises(ValueError, match=rf"cannot read the image .*{name}: \d+ bytes cannot be decoded"):
            imread(tmp_path / "gt" / name, flag)


def test_a_folder_named_like_an_image_is_no_image(tmp_path):
    options = paired(tmp_path, "a.png", encode(RGB, "PNG"))
    (tmp_path / "gt" / "b.png").mkdir()
    assert len(build_dataset(options)) == 1
    with pytest.raises(OSError, match=r"b\.png"):
        imread(tmp_path / "gt" / "b.png")


@pytest.mark.parametrize("kind", READ)
def test_a_database_holds_what_the_folder_shows(tmp_path, kind):
    """Preparation keeps depth and channels, and turns what datasets turn."""
    name, content, _, _ = READ[kind]
    options = paired(tmp_path, name, content)
    for role, file in (("gt", name), ("lq", "a.png")):
        make_lmdb_from_imgs(str(tmp_path / role), str(tmp_path / f"{role}.lmdb"), [file], ["a"])
        options[f"dataroot_{role}"] = str(tmp_path / f"{role}.lmdb")
    disk = build_dataset({**options, "dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq")})
    database = build_dataset({**options, "io_backend": {"type": "lmdb"}})
    np.testing.assert_array_equal(database[0]["gt"], disk[0]["gt"])


def test_alpha_and_depth_are_kept_for_preparation(tmp_path):
    for name, content, channels, kind in (
        ("alpha.png", READ["alpha"][1], 4, np.uint8),
        ("deep.png", READ["16 bits"][1], 3, np.uint16),
        ("turned.png", encode(np.rot90(np.asarray(WITH_ALPHA)), "PNG", exif=exif(6)), 3, np.uint8),
    ):
        (tmp_path / name).write_bytes(content)
        img = read_source(str(tmp_path / name))
        assert img.shape == (HEIGHT, WIDTH, channels) and img.dtype == kind


# LMDB databases.


@pytest.fixture
def database(tmp_path) -> Path:
    """gt.lmdb with six noisy images, 0 to 5."""
    rng = np.random.default_rng(0)
    (tmp_path / "gt").mkdir()
    for index in range(6):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        (tmp_path / "gt" / f"{index}.png").write_bytes(encode(noise, "PNG"))
    names = [f"{index}.png" for index in range(6)]
    make_lmdb_from_imgs(str(tmp_path / "gt"), str(tmp_path / "gt.lmdb"), names, [n[0] for n in names])
    yield tmp_path / "gt.lmdb"
    _close_environments()


def from_database(path: Path):
    options = {"name": "test", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": str(path)}
    return build_dataset({**options, "io_backend": {"type": "lmdb"}})


def test_a_key_that_is_listed_and_absent_is_named(database):
    meta = database / "meta_info.txt"
    meta.write_text(meta.read_text() + "gone.png (64,64,3) 1\n")
    dataset = from_database(database)
    assert len(dataset) == 7
    with pytest.raises(KeyError, match=r"the LMDB .*gt\.lmdb has no key 'gone'"):
        dataset[6]


@pytest.mark.parametrize("key", ["", "x" * 600])
def test_keys_that_no_database_can_hold(database, key):
    with pytest.raises(KeyError, match=rf"gt\.lmdb has no key '{key}'"):
        FileClient("lmdb", db_paths=str(database)).get(key)


def test_a_database_without_its_list_or_its_data_is_named(database, tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.lmdb, and .*gt does not"):
        from_database(tmp_path / "gt")
    shutil.copytree(database, tmp_path / "no_list.lmdb")
    (tmp_path / "no_list.lmdb" / "meta_info.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no_list\.lmdb.meta_info\.txt does not exist; .*create_lmdb\.py"):
        from_database(tmp_path / "no_list.lmdb")
    shutil.copytree(database, tmp_path / "no_data.lmdb")
    (tmp_path / "no_data.lmdb" / "data.mdb").unlink()
    with pytest.raises(FileNotFoundError, match=r"no_data\.lmdb is not an LMDB: it has no data\.mdb"):
        from_database(tmp_path / "no_data.lmdb")[0]


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.999])
def test_a_cut_database_is_refused_and_does_not_kill_the_process(database, part):
    """Reading beyond the end of the file would end the process by SIGBUS: hence a process of its own."""
    data = database / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, int(size * part))
    code = (
        "import sys\nfrom basicsr.utils.file_client import FileClient\n"
        "client = FileClient('lmdb', db_paths=sys.argv[1])\n"
        "try:\n    [client.get(str(i)) for i in range(6)]\nexcept OSError as error:\n    print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(database)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    wanted = "is incomplete: data.mdb has" if part else "cannot open the LMDB"
    assert wanted in result.stdout and "gt.lmdb" in result.stdout


def test_a_database_with_damaged_pages_is_named(database):
    data = bytearray((database / "data.mdb").read_bytes())
    for start in range(8192, len(data), 4096):
        data[start : start + 16] = b"\x55" * 16
    (database / "data.mdb").write_bytes(data)
    with pytest.raises(OSError, match=r"cannot read '0' from the LMDB .*gt\.lmdb, which is damaged"):
        FileClient("lmdb", db_paths=str(database)).get("0")


# Lists of images.


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a.png (24,32\n", r"a\.png \(24,32"),
        ("a.png 24,32,3\n", r"a\.png 24,32,3"),
        ("a.png;24;32\n", r"a\.png;24;32"),
        ("../lq/a.png (24,32,3)\n", r"\.\./lq/a\.png"),
        ("(24,32,3)\n", r"\(24,32,3\)"),
    ],
)
def test_malformed_lines_of_a_list_are_named(tmp_path, text, named):
    options = paired(tmp_path, "a.png", encode(RGB, "PNG"), meta_info_file=str(tmp_path / "list.txt"))
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"gt lacks gt images listed in .*list\.txt: {named}\."):
        build_dataset(options)


def test_lists_of_other_systems_are_read(tmp_path):
    options = paired(tmp_path, "a.png", encode(RGB, "PNG"), meta_info_file=str(tmp_path / "list.txt"))
    (tmp_path / "list.txt").write_bytes(b"a.png (24,32,3)\r\n\r\n")
    assert len(build_dataset(options)) == 1
