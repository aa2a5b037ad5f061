"""The folders and files of a downloaded data set, listed once."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

from basicsr.data.data_util import IMAGE_EXTENSIONS
from basicsr.utils.files import UNREADABLE_FOLDER, kind_of
from basicsr.utils.misc import scandir

_SHOWN = 4


class Tree:
    """The files below a folder. Hidden ones are left out.

    Args:
        root: The folder.

    Attributes:
        root: The same.
        files: The folders that hold files → their names, sorted. Folders are relative to ``root``, with forward
            slashes; ``root`` itself is ``""``.
        unusable: A line for each entry that is named like an image and cannot be read, and for each unreadable folder.

    Raises:
        FileNotFoundError: If there is no such folder; the message says what is there instead.
        OSError: If it cannot be listed.
    """

    def __init__(self, root: str) -> None:
        if not os.path.isdir(root):
            kind = kind_of(root)
            problem = "does not exist" if kind == "absent" else f"is {kind}, not a folder; unpack an archive first"
            raise FileNotFoundError(f"the source {root} {problem}")
        self.root = Path(root)
        self.files: dict[str, list[str]] = {}
        self.unusable: list[str] = []
        for name in scandir(root, recursive=True, skipped=self._skip):
            folder, name = posixpath.split(name.replace(os.sep, "/"))
            self.files.setdefault(folder, []).append(name)

    def _skip(self, name: str, kind: str) -> None:
        if kind == UNREADABLE_FOLDER or name.lower().endswith(IMAGE_EXTENSIONS):
            self.unusable.append(f"{self.root / name}: it is {kind}")

    def images(self, folder: str) -> list[str]:
        """The names of a folder's images, sorted."""
        return [name for name in self.files.get(folder, ()) if name.lower().endswith(IMAGE_EXTENSIONS)]

    def path(self, folder: str, name: str = "") -> str:
        """The path of a folder, or of a file in it."""
        return str(self.root / folder / name)

    def summary(self) -> str:
        """What there is, for an error message: the first folders with the number of their files."""
        parts = [
            f"{folder or 'the folder itself'} ({len(names)} file{'' if len(names) == 1 else 's'}, {names[0]} …)"
            for folder, names in list(self.files.items())[:_SHOWN]
        ]
        more = len(self.files) - _SHOWN
        return ", ".join(parts) + (f" and {more} more folders" if more > 0 else "") if parts else "no file"
