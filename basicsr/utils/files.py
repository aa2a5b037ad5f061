"""What a path leads to: a file that can be read, or something that would be waited for, or read, for ever."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

UNREADABLE_FOLDER = "a folder that cannot be read"
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of(path: str | os.PathLike[str]) -> str:
    """What a path leads to, in words: ``a file``, ``a folder``, ``a FIFO``, ``a link to nothing``, ``absent`` …"""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else "absent"
    except OSError as error:
        return "a link to itself" if error.errno == errno.ELOOP else f"out of reach ({error.strerror})"
    kind = next((word for test, word in _KINDS if test(mode)), "not a file")
    return UNREADABLE_FOLDER if kind == "a folder" and not os.access(path, os.R_OK | os.X_OK) else kind


def not_a_file(path: str | os.PathLike[str]) -> str | None:
    """Why a path cannot be read as a file, as the end of a sentence; None if it is one, or a link to one.

    It is not opened: a FIFO would be waited for, and a device may have no end.
    """
    kind = kind_of(path)
    return None if kind == "a file" else f"is {kind}"


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Make a folder unless it is there, and refuse one in which no file can be made.

    Raises:
        OSError: With a sentence that names the folder.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"nothing can be written to the folder {os.fspath(folder)}: {error.strerror or error}") from error


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
        OSError: If it cannot be read, or is not a file: a FIFO would be waited for, and a device may have no end.
    """
    path = Path(path)
    if not path.is_file() and os.path.lexists(path):
        raise OSError(f"{path} is {kind_of(path)}, not a file")
    return path.read_bytes()
