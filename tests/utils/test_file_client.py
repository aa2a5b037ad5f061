"""Storage backends."""

import multiprocessing
import pickle

import lmdb
import pytest

from basicsr.utils.file_client import FileClient


@pytest.fixture
def database(tmp_path) -> str:
    path = str(tmp_path / "x.lmdb")
    with lmdb.open(path, map_size=2**20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
        transaction.put("größe".encode(), "Länge".encode())
    return path


def test_disk(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00\x01")
    (tmp_path / "b").write_text("größe", encoding="utf-8")
    client = FileClient("disk")
    assert client.get(tmp_path / "a", "lq") == b"\x00\x01"
    assert client.get_text(str(tmp_path / "b")) == "größe"
    with pytest.raises(FileNotFoundError, match="nothing"):
        client.get(tmp_path / "nothing")


def test_lmdb(database):
    client = FileClient("lmdb", db_paths=database)
    assert client.get("key") == b"value"
    assert client.get_text("größe") == "Länge"
    with pytest.raises(KeyError, match="x.lmdb has no key 'other'"):
        client.get("other")
    with pytest.raises(KeyError, match="no LMDB is named 'gt': there is default"):
        client.get("key", "gt")


def test_one_database_may_have_two_names_and_two_readers(database):
    clients = [FileClient("lmdb", db_paths=[database, database], client_keys=["lq", "gt"]) for _ in range(2)]
    assert {client.get("key", name) for client in clients for name in ("lq", "gt")} == {b"value"}


def _read(client: FileClient, results) -> None:
    results.put(client.get("key"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_client_in_use_goes_to_another_process(database, method):
    client = FileClient("lmdb", db_paths=database)
    assert client.get("key") == b"value"
    if method == "spawn":  # this module cannot be imported by name there; what spawn needs is that it pickles
        assert pickle.loads(pickle.dumps(client)).get("key") == b"value"
        return
    context = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=_read, args=(client, results))
    process.start()
    assert results.get(timeout=30) == b"value"
    process.join()
    assert client.get("key") == b"value"


def test_wrong_use(tmp_path):
    with pytest.raises(ValueError, match="unknown storage 's3': io_backend.type is one of disk, lmdb"):
        FileClient("s3")
    with pytest.raises(ValueError, match="2 LMDB paths .* but 1 client keys"):
        FileClient("lmdb", db_paths=["a", "b"], client_keys="lq")
    with pytest.raises(FileNotFoundError, match="none.lmdb is not an LMDB: it has no data.mdb"):
        FileClient("lmdb", db_paths=str(tmp_path / "none.lmdb")).get("a")
    (tmp_path / "bad.lmdb").mkdir()
    (tmp_path / "bad.lmdb" / "data.mdb").write_bytes(b"garbage" * 4096)
    with pytest.raises(OSError, match="cannot open the LMDB .*bad.lmdb"):
        FileClient("lmdb", db_paths=str(tmp_path / "bad.lmdb")).get("a")
