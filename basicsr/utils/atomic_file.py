"""Writes files atomically."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

LEFTOVER = re.compile(r"\.(.+)\.\d+(-[0-9a-f]+)?\.tmp")


class _HashingFile(io.BufferedWriter):
    """A new file, and the SHA-256 of what has been written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(os.fspath(path), "wb"))
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return super().write(data)


def atomic_save(obj: Any, path: str | os.PathLike) -> str:
    """``torch.save`` to a file beside ``path``, flush it to the disk, then rename it to ``path``.

    Whenever the process is killed, the path holds the old file or the new one, never a part.

    Returns:
        The SHA-256 of the file, in hexadecimal digits.

    Raises:
        OSError: If the file cannot be written; the previous file is untouched.
    """
    return _write(path, lambda file: torch.save(obj, file))


def atomic_write(text: str, path: str | os.PathLike) -> None:
    """Write a text as :func:`atomic_save` writes an object."""
    _write(path, lambda file: file.write(text.encode()))


def _write(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> str:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = temporary_name(path)
    try:
        with _HashingFile(aside) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = _root_cause(error)
        refusal = OSError(f"{path} could not be written ({reason}); a previous file of that name is untouched")
        refusal.errno = getattr(reason, "errno", None)
        raise refusal from error
    finally:
        aside.unlink(missing_ok=True)
    return file.sha256.hexdigest()


def temporary_name(path: Path) -> Path:
    """A name beside a file that no other process uses, on this machine or another."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def file_hash(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, as :func:`atomic_save` returns it."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            sha256.update(block)
    return sha256.hexdigest()


def _flush_folder(folder: Path) -> None:
    """Flush a rename to the disk, so that it survives a power failure."""
    if hasattr(os, "O_DIRECTORY"):  # a folder cannot be opened on Windows
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _root_cause(error: BaseException) -> BaseException:
    """The operating system's error behind torch's, which does not show it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete the unfinished files that runs killed in :func:`atomic_save` have left in a folder."""
    for file in Path(folder).glob(".*.tmp"):
        if LEFTOVER.fullmatch(file.name):
            file.unlink(missing_ok=True)
