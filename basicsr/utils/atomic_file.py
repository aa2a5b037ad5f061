"""Writes files atomically."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

LEFTOVER = re.compile(r"\.(.+)\.\d+\.tmp")


def atomic_save(obj: Any, path: str | os.PathLike) -> None:
    """``torch.save`` to a file beside ``path``, flush it to the disk, then rename it to ``path``.

    Whenever the process is killed, the path holds the old file or the new one, never a part.

    Raises:
        OSError: If the file cannot be written; the previous file is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            torch.save(obj, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = _root_cause(error)
        raise OSError(f"{path} could not be written ({reason}); a previous file of that name is untouched") from error
    finally:
        aside.unlink(missing_ok=True)


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
