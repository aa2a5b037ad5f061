"""What is at a path, where a file is expected: pipes and devices are recognised without being opened."""

from __future__ import annotations

import errno
import os
import stat

_KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a named pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


def not_a_file(path: str | os.PathLike) -> str | None:
    """Why a path cannot be read as a file, as the end of a sentence; None if it is a file, or a link to one.

    A named pipe or a device is not opened, since that may wait for ever or never end.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "is a link to a file that does not exist" if os.path.islink(path) else "is absent"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads back to itself"
        return f"cannot be read ({error.strerror or error})"
    kind = stat.S_IFMT(mode)
    return None if kind == stat.S_IFREG else _KINDS.get(kind, "is not a file")
