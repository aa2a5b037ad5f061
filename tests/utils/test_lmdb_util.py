"""Writing databases in BasicSR's layout, and reading one made by hand."""

import cv2
import lmdb
import numpy as np
import pytest

from basicsr.data.data_util import paths_from_lmdb
from basicsr.utils.file_client import FileClient
from basicsr.utils.img_util import imfrombytes
from basicsr.utils.lmdb_util import LmdbMaker, make_lmdb_from_imgs, read_img_worker


def _image(seed: int, shape=(5, 7, 3), dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def test_layout(tmp_path):
    images = {"a.png": _image(0), "a.b.png": _image(1, (4, 6)), "c.tif": _image(2, dtype=np.uint16), "ü.bmp": _image(3)}
    for name, img in images.items():
        (tmp_path / name).write_bytes(cv2.imencode(name[name.rindex(".") :], img)[1].tobytes())
    keys = ["a", "a.b", "c", "ü"]
    path = tmp_path / "out.lmdb"
    make_lmdb_from_imgs(str(tmp_path), str(path), list(images), keys, batch=2, compress_level=3)
    assert sorted(file.name for file in path.iterdir()) == ["data.mdb", "lock.mdb", "meta_info.txt"]
    assert (path / "meta_info.txt").read_text(encoding="utf-8").splitlines() == [
        "a.png (5,7,3) 3",
        "a.b.png (4,6,1) 3",
        "c.png (5,7,3) 3",
        "ü.png (5,7,3) 3",
    ]
    assert paths_from_lmdb(str(path)) == keys
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        for key, img in zip(keys, images.values()):
            content = transaction.get(key.encode())
            assert content.startswith(b"\x89PNG")
            np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED), img)


def test_a_database_made_by_hand_in_basicsrs_layout_is_read(tmp_path):
    path = tmp_path / "by_hand.lmdb"
    img = _image(5)
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0001_s001", cv2.imencode(".png", img, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    (path / "meta_info.txt").write_text("0001_s001.png (5,7,3) 1\n")
    (key,) = paths_from_lmdb(str(path))
    content = FileClient("lmdb", db_paths=[str(path)], client_keys=["lq"]).get(key, "lq")
    np.testing.assert_array_equal(imfrombytes(content), img)


def test_several_processes_give_the_same_database(tmp_path):
    names = [f"{i}.png" for i in range(12)]
    for i, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), _image(i))
    contents = []
    for processes in (False, True):
        path = str(tmp_path / f"{processes}.lmdb")
        make_lmdb_from_imgs(
            str(tmp_path), path, names, [name[:-4] for name in names], multiprocessing_read=processes, n_thread=2
        )
        client = FileClient("lmdb", db_paths=path)
        contents.append([client.get(key) for key in paths_from_lmdb(path)])
    assert contents[0] == contents[1] and len(contents[0]) == 12


def test_it_appears_when_complete_and_replaces_what_a_killed_run_left(tmp_path):
    path = tmp_path / "x.lmdb"
    killed = LmdbMaker(str(path), map_size=2**20)
    killed.put(b"half", "half", (1, 1, 1))
    assert not path.exists()
    killed._environment.close()  # as the end of the process would
    with LmdbMaker(str(path), map_size=2**20) as maker:
        maker.put(b"whole", "whole", (1, 2, 3))
        assert not path.exists()
    assert (path / "meta_info.txt").read_text() == "whole.png (1,2,3) 1\n"
    client = FileClient("lmdb", db_paths=str(path))
    assert client.get("whole") == b"whole"
    with pytest.raises(KeyError):
        client.get("half")
    assert [file.name for file in tmp_path.iterdir()] == ["x.lmdb"]


def test_damaged_images_are_all_named_and_nothing_is_made(tmp_path):
    cv2.imwrite(str(tmp_path / "good.png"), _image(0))
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"(?s)x\.lmdb was not made.*bad\.png.*gone\.png"):
        make_lmdb_from_imgs(
            str(tmp_path), str(tmp_path / "x.lmdb"), ["bad.png", "good.png", "gone.png"], ["bad", "good", "gone"]
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.png", "good.png"]


def test_wrong_use(tmp_path):
    with pytest.raises(ValueError, match="must end in .lmdb: .*x"):
        LmdbMaker(str(tmp_path / "x"))
    (tmp_path / "x.lmdb").mkdir()
    with pytest.raises(FileExistsError, match="x.lmdb exists already"):
        LmdbMaker(str(tmp_path / "x.lmdb"))
    with pytest.raises(ValueError, match="2 images but 1 keys"):
        make_lmdb_from_imgs("", str(tmp_path / "y.lmdb"), ["a", "b"], ["a"])
    with (
        pytest.raises(ValueError, match="two images would have the key 'a'"),
        LmdbMaker(str(tmp_path / "y.lmdb")) as maker,
    ):
        maker.put(b"1", "a", (1, 1, 1))
        maker.put(b"2", "a", (1, 1, 1))
    with pytest.raises(ValueError, match="1 to 511 bytes; .* has 512"), LmdbMaker(str(tmp_path / "y.lmdb")) as maker:
        maker.put(b"1", "a" * 512, (1, 1, 1))
    assert not (tmp_path / "y.lmdb").exists()


def test_read_img_worker(tmp_path):
    cv2.imwrite(str(tmp_path / "g.png"), _image(0, (3, 4)))
    key, content, shape = read_img_worker(str(tmp_path / "g.png"), "g", 9)
    assert (key, shape) == ("g", (3, 4, 1)) and content.startswith(b"\x89PNG")
