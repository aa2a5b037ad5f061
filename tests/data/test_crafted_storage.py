"""Decoded storage and databases that someone has changed on purpose, or cuts short while they are read.

What is tested would end the process by a signal, or show its memory, if it failed: so it runs in a process of its own.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr.data.memmap.images import MemmapImages
from basicsr.data.memmap.writer import create_memmap
from basicsr.utils.file_client import _close_environments
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

ROOT = Path(__file__).resolve().parents[2]
SIDE = 128  # an image is larger than a page of memory


@pytest.fixture
def stored(tmp_path) -> Path:
    """gt.memmap with the images a.png and b.png."""
    (tmp_path / "gt").mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "gt" / name), noise)
    create_memmap(str(tmp_path / "gt"), str(tmp_path / "gt.memmap"))
    return tmp_path / "gt.memmap"


def change(folder: Path, row: int, **changes) -> None:
    """Change an image's line, and make the checksum right again."""
    head, *lines = (folder / "index.jsonl").read_bytes().splitlines()
    lines[row] = json.dumps({**json.loads(lines[row]), **changes}).encode()
    write(folder, json.loads(head), b"".join(line + b"\n" for line in lines))


def write(folder: Path, head: dict, body: bytes) -> None:
    head["sha256"] = hashlib.sha256(body).hexdigest()
    (folder / "index.jsonl").write_bytes(json.dumps(head).encode() + b"\n" + body)


def run(code: str, *arguments: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


READ_ALL = """
import sys
from basicsr.data.memmap.images import MemmapImages
for folder in sys.argv[1:]:
    try:
        images = MemmapImages(folder)
        print([images.image(image.name).astype(float).sum() for image in images.index.images], flush=True)
    except ValueError as error:
        print("refused:", error, flush=True)
"""

SIZE = SIDE * SIDE * 3


# line of the index, what is changed in it, and the reason for which it is refused
CRAFTED = (
    (0, {"dtype": "O"}, "a.png has pixels of type 'O', not uint8, uint16, float32"),
    (0, {"dtype": "object", "shape": [8, 8, 3]}, "a.png has pixels of type 'object'"),
    (0, {"dtype": ["uint8"]}, "a.png has pixels of type ['uint8']"),
    (0, {"dtype": "S48"}, "a.png has pixels of type 'S48'"),
    (0, {"offset": -4096}, "offset, source_size, source_mtime_ns or crc32 of a.png is not a whole number"),
    (0, {"offset": 64}, "a.png is said to start at byte 64, and starts at 0"),
    (1, {"offset": 2**62}, f"b.png is said to start at byte {2**62}, and starts at {SIZE}"),
    (1, {"offset": 2**70}, f"b.png is said to start at byte {2**70}"),
    (1, {"offset": 0}, "b.png is said to start at byte 0"),
    (1, {"offset": True}, "of b.png is not a whole number"),
    (0, {"shape": [2**31, 2**31, 3]}, "b.png is said to start at byte 49152, and starts at"),
    (1, {"shape": [2**31, 2**31, 3]}, "pixels.bin has 98304 bytes and should have"),
    (0, {"shape": [-SIDE, -SIDE, 3]}, "a.png has the shape (-128, -128, 3), not (height, width, 3)"),
    (0, {"shape": [SIDE, SIDE * 3]}, "a.png has the shape (128, 384)"),
    (0, {"shape": [SIDE * 3, SIDE, 1]}, "a.png has the shape (384, 128, 1)"),
    (0, {"shape": [SIDE, 128.0, 3]}, "a.png has the shape (128, 128.0, 3)"),
    (0, {"shape": "abc"}, "a.png has the shape ('a', 'b', 'c')"),
    (0, {"shape": None}, "it does not describe an image"),
    (0, {"speed": 3}, "it does not describe an image"),
    (0, {"crc32": "x"}, "crc32 of a.png is not a whole number"),
    (1, {"name": "a.png"}, "a.png is in it twice"),
    (0, {"name": "../../x.png"}, "'../../x.png' is not the name of a file below the folder"),
    (0, {"name": "/x.png"}, "'/x.png' is not the name"),
    (0, {"name": 3}, "3 is not the name"),
)


def test_a_crafted_index_is_refused(stored):
    folders = []
    for number, (row, changes, _) in enumerate(CRAFTED):
        folders.append(shutil.copytree(stored, stored.with_name(f"{number}.memmap")))
        change(folders[-1], row, **changes)
    result = run(READ_ALL, *folders)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, f"{CRAFTED[len(lines)]}: {result.returncode} {result.stderr[-300:]}"
    for folder, line, (_, _, reason) in zip(folders, lines, CRAFTED, strict=True):
        assert line.startswith("refused:") and reason in line and folder.name in line


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "it describes no images"), (b"[" * 100_000 + b"\n", "it does not describe"), (b"3\n", "it does not")],
)
def test_an_index_without_images_is_refused(stored, body, reason):
    write(stored, {"version": 1, "source": "x"}, body)
    with pytest.raises(ValueError, match=rf"index\.jsonl cannot be used: {reason}"):
        MemmapImages(str(stored))


def test_storage_that_is_cut_while_it_is_used_ends_with_a_sentence(stored):
    code = (
        "import os, sys\nfrom basicsr.data.memmap.images import MemmapImages\n"
        "images = MemmapImages(sys.argv[1])\nimages.image('a.png').sum()\n"
        "os.truncate(sys.argv[2], 5000)\n"
        "try:\n    images.image('b.png').sum()\nexcept OSError as error:\n    print(error)\n"
    )
    result = run(code, stored, stored / "pixels.bin")
    assert result.returncode == 0, f"{result.returncode} {result.stderr[-300:]}"
    assert "pixels.bin has 5000 bytes and had 98304 when it was opened: it was cut short" in result.stdout


def test_a_database_that_is_cut_while_it_is_used_ends_with_a_sentence(stored, tmp_path):
    make_lmdb_from_imgs(str(tmp_path / "gt"), str(tmp_path / "gt.lmdb"), ["a.png", "b.png"], ["a", "b"])
    _close_environments()
    code = (
        "import os, sys\nfrom basicsr.utils.file_client import FileClient\n"
        "client = FileClient('lmdb', db_paths=sys.argv[1])\nclient.get('a')\n"
        "os.truncate(sys.argv[2], 5000)\n"
        "try:\n    client.get('b')\nexcept OSError as error:\n    print(error)\n"
    )
    result = run(code, tmp_path / "gt.lmdb", tmp_path / "gt.lmdb" / "data.mdb")
    assert result.returncode == 0, f"{result.returncode} {result.stderr[-300:]}"
    assert "gt.lmdb is incomplete: data.mdb has 5,000 bytes of" in result.stdout
