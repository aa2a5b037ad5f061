"""The default folder of runs, and the paths of result files."""

from __future__ import annotations

import os
from pathlib import Path, PurePath


def default_root() -> str:
    """The checkout's folder, or the working directory when the package is installed elsewhere."""
    checkout = Path(__file__).resolve().parents[2]
    return str(checkout if (checkout / "pyproject.toml").is_file() else Path.cwd())


def stays_inside(name: str | PurePath) -> bool:
    """Whether a relative path, appended to a folder, names something in that folder: not absolute, and without ``..``.

    What links in the folder point to is not looked at.
    """
    path = PurePath(name)
    return not path.anchor and ".." not in path.parts and "\0" not in str(path)


def path_inside(folder: str | os.PathLike[str], *parts: str | PurePath) -> Path:
    """The path of a result file, whose name may come from a database, a file list or an option.

    Args:
        folder: The folder of the results.
        *parts: Relative paths, each appended to what is before it.

    Raises:
        ValueError: If the file would lie outside the folder.
    """
    for part in parts:
        if not stays_inside(part):
            raise ValueError(
                f"'{part}' would be written outside {os.fspath(folder)}: the name of a result must not be absolute, "
                "and must not hold '..'; rename the image (in an LMDB its key)"
            )
    return Path(folder, *parts)
