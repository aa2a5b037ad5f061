"""Which run a training state belongs to, and which options the run had."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.utils.atomic_file import file_hash
from basicsr.utils.options.errors import Key, dotted


@dataclass(frozen=True)
class RunIdentity:
    """The run, as its training states name it.

    Attributes:
        id: Drawn once for a run, from the operating system and not from a generator that numbers depend on.
        continuation: How often the run has been continued.
        parent: Of a run that has been continued: ``id``, ``continuation`` and ``iter`` of the state that it goes on
            from. A state without an identity, such as BasicSR's, has the iteration alone.
        options: The options as they were read, in plain values.
        files: What :func:`hashes_of_files` says of them.
    """

    id: str
    continuation: int
    parent: Mapping[str, Any] | None
    options: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def new(cls, options: Mapping[str, Any], files: Mapping[str, str]) -> RunIdentity:
        """That of a run that starts."""
        return cls(secrets.token_hex(8), 0, None, options, files)

    @classmethod
    def continuing(
        cls, state: Mapping[str, Any], options: Mapping[str, Any], files: Mapping[str, str], is_own: bool
    ) -> RunIdentity:
        """That of a run that goes on from a training state.

        Args:
            state: The training state.
            options: The options.
            files: The hashes of the files that they name.
            is_own: Whether the state lies in the run's own folder; one of another run is where a new one begins.
        """
        saved = state.get("run") or {}
        parent = {key: saved[key] for key in ("id", "continuation") if key in saved} | {"iter": state["iter"]}
        own_id = saved.get("id") if is_own else None
        return cls(own_id or secrets.token_hex(8), saved.get("continuation", 0) + 1, parent, options, files)

    def state(self) -> dict[str, Any]:
        """What a training state holds of it."""
        run = {
            "id": self.id,
            "continuation": self.continuation,
            "parent": None if self.parent is None else {**self.parent},
        }
        return {"run": run, "options": plain(self.options), "files": dict(self.files)}


def hashes_of_files(options: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of each file that an option names, such as a teacher's weights, by the dotted name of the option.

    A text is taken for the name of a file if it has an extension and the file is there. Folders and URLs are left out.
    """
    hashes = {}
    for key, text in _texts(options):
        file = Path(text).expanduser()
        with suppress(OSError, ValueError):  # it is not a name, or the file's user will say why it cannot be read
            if file.suffix and os.path.isfile(file):
                hashes[dotted(key)] = file_hash(file)
    return hashes


def _texts(value: Any, key: Key = ()) -> Iterator[tuple[Key, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, (*key, str(name)))
    elif isinstance(value, str):
        yield key, value


def plain(value: Any) -> Any:
    """A value of an option file as training states hold it: dicts, lists, numbers and strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else str(value)
