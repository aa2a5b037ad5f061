"""Records from which files the images of a folder are made, so that another source is not taken for the same one."""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path

from basicsr.utils.atomic_file import atomic_write

from .pairs import Part, Picture

_RECORD = ".sources.json"


def require_same_sources(folder: str, part: Part) -> None:
    """Refuse a folder with images that were made from other files of the same names; record those of this part.

    Files are told apart by their size in bytes, images within a file by their checksum. Pairs may be added.

    Raises:
        ValueError: If there are such images, or the record is damaged.
        OSError: If a file cannot be read, or the record not be written.
    """
    record = Path(folder, _RECORD)
    made: dict[str, list[int]] = {}
    if record.is_file():
        try:
            made = dict(json.loads(record.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{record}, what the images were made from, is damaged ({error}); remove {folder}"
            ) from error
    own = {pair.name: [_fingerprint(pair.lq), _fingerprint(pair.gt)] for pair in part.pairs}
    changed = [pair for pair in part.pairs if made.get(pair.name, own[pair.name]) != own[pair.name]]
    there = _names_of_images(folder) if changed else set()
    others = [pair for pair in changed if pair.name in there]
    if others:
        shown = others[0].lq if isinstance(others[0].lq, str) else others[0].name
        raise ValueError(
            f"{folder} holds {len(others)} pair{'s' * (len(others) > 1)} made from other files of the same names than "
            f"those of this source; the first is of {shown}. Remove the folder, or name another target"
        )
    if any(made.get(name) != value for name, value in own.items()):
        atomic_write(json.dumps(made | own), record)


def _names_of_images(folder: str) -> set[str]:
    """The pairs that have an image there: damaged ones have none, and may be repaired in the source."""
    stems = {path.stem for role in ("lq", "gt") for path in Path(folder, role).glob("*")}
    return stems | {re.sub(r"_s\d+$", "", stem) for stem in stems}


def _fingerprint(picture: Picture) -> int:
    return os.path.getsize(picture) if isinstance(picture, str) else zlib.crc32(picture.tobytes())
