"""Reads the bytes of files from a storage backend: single files, or LMDB databases."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import lmdb

from .files import read_file

# LMDB allows one environment per database and process, so all readers of a process share them.
_environments: dict[str, lmdb.Environment] = {}


def _close_environments() -> None:
    for environment in _environments.values():
        environment.close()
    _environments.clear()


# An environment must not be used across a fork; a forked worker opens its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_environments)


class BaseStorageBackend(ABC):
    """A storage backend."""

    @abstractmethod
    def get(self, filepath: str | os.PathLike[str], client_key: str = "default") -> bytes:
        """The content of a file.

        Args:
            filepath: Its path or key.
            client_key: Which of several databases to look in, for backends that have them.
        """

    @abstractmethod
    def get_text(self, filepath: str | os.PathLike[str], client_key: str = "default") -> str:
        """The content of a text file in UTF-8."""


class HardDiskBackend(BaseStorageBackend):
    """Files of the file system."""

    def get(self, filepath: str | os.PathLike[str], client_key: str = "default") -> bytes:
        return read_file(filepath)

    def get_text(self, filepath: str | os.PathLike[str], client_key: str = "default") -> str:
        return read_file(filepath).decode("utf-8")


class LmdbBackend(BaseStorageBackend):
    """LMDB databases, opened on first read in each process.

    Args:
        db_paths: One or several databases (folders ending in ``.lmdb``).
        client_keys: A name for each.
        readonly: Whether to open without the right to write.
        lock: Whether to lock against writers.
        readahead: Whether the system may read ahead; it hurts random access to a database larger than memory.

    Raises:
        ValueError: If paths and names differ in number.
    """

    def __init__(
        self,
        db_paths: str | os.PathLike[str] | list[str],
        client_keys: str | list[str] = "default",
        readonly: bool = True,
        lock: bool = False,
        readahead: bool = False,
    ) -> None:
        paths = db_paths if isinstance(db_paths, list) else [db_paths]
        names = client_keys if isinstance(client_keys, list) else [client_keys]
        if len(paths) != len(names):
            raise ValueError(f"{len(paths)} LMDB paths ({paths}) but {len(names)} client keys ({names})")
        self.db_paths = dict(zip(names, map(os.fspath, paths)))
        self._open_options = {"readonly": readonly, "lock": lock, "readahead": readahead}

    def get(self, filepath: str | os.PathLike[str], client_key: str = "default") -> bytes:
        """The value of a key.

        Raises:
            KeyError: If the database has no such key, or there is no such database.
            FileNotFoundError: If the database does not exist.
            OSError: If it is damaged or incomplete, also since it was opened.
        """
        if client_key not in self.db_paths:
            raise KeyError(f"no LMDB is named '{client_key}': there is {', '.join(self.db_paths)}")
        path = self.db_paths[client_key]
        environment = self._environment(path)
        _require_whole(environment, path)
        try:
            with environment.begin() as transaction:
                value = transaction.get(str(filepath).encode())
        except lmdb.BadValsizeError:  # an empty or overlong key
            value = None
        except lmdb.Error as error:
            raise OSError(f"cannot read '{filepath}' from the LMDB {path}, which is damaged: {error}") from error
        if value is None:
            raise KeyError(f"the LMDB {path} has no key '{filepath}'")
        return value

    def get_text(self, filepath: str | os.PathLike[str], client_key: str = "default") -> str:
        return self.get(filepath, client_key).decode("utf-8")

    def _environment(self, path: str) -> lmdb.Environment:
        place = os.path.realpath(path)
        if place not in _environments:
            if not os.path.isfile(os.path.join(path, "data.mdb")):  # opening a FIFO would wait for ever
                raise FileNotFoundError(f"{path} is not an LMDB: it has no data.mdb")
            try:
                environment = lmdb.open(path, create=False, **self._open_options)
            except lmdb.Error as error:
                raise OSError(f"cannot open the LMDB {path}: {error}") from error
            try:
                _require_whole(environment, path)
            except OSError:
                environment.close()
                raise
            _environments[place] = environment
        return _environments[place]


def _require_whole(environment: lmdb.Environment, path: str) -> None:
    """Refuse a database whose file was cut short, before or while it is used: reading beyond its end would end the
    process by SIGBUS."""
    try:
        present = os.path.getsize(os.path.join(path, "data.mdb"))
    except FileNotFoundError:  # removed since, which leaves the mapped file as it is
        return
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if present < needed:
        raise OSError(f"the LMDB {path} is incomplete: data.mdb has {present:,} bytes of {needed:,}; copy it again")


class FileClient:
    """Reads files from one backend.

    Args:
        backend: ``disk`` or ``lmdb``.
        **kwargs: The arguments of the backend.

    Raises:
        ValueError: For another backend.
    """

    _backends: ClassVar[dict[str, type[BaseStorageBackend]]] = {"disk": HardDiskBackend, "lmdb": LmdbBackend}

    def __init__(self, backend: str = "disk", **kwargs: Any) -> None:
        if backend not in self._backends:
            raise ValueError(f"unknown storage '{backend}': io_backend.type is one of {', '.join(self._backends)}")
        self.backend = backend
        self.client = self._backends[backend](**kwargs)

    def get(self, filepath: str | os.PathLike[str], client_key: str = "default") -> bytes:
        """The content of a file: by its path, or by its key in the LMDB named ``client_key``."""
        return self.client.get(filepath, client_key)

    def get_text(self, filepath: str | os.PathLike[str], client_key: str = "default") -> str:
        """The same as text in UTF-8."""
        return self.client.get_text(filepath, client_key)
