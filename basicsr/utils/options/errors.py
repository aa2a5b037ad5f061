"""What is wrong with options, and where each of them was written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Key = tuple[Any, ...]
"""The way to a value: ``("datasets", "train", "gt_size")``; list items by their index."""


class OptionError(ValueError):
    """What is wrong with an option file: one sentence per problem.

    Args:
        problems: The sentences, each naming the option, the file and the line.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1:
            text = self.problems[0]
        else:
            text = f"{len(self.problems)} problems in the options:\n" + "\n".join(f"  - {p}" for p in self.problems)
        super().__init__(text)


class Marks(dict[Key, str]):
    """Where each option was written: ``options/x.yml:12`` or ``--force_yml``, by the way to the option.

    An option that was translated from another spelling is known by its new name too, and messages about it name what
    the user wrote.

    Attributes:
        notices: Sentences on how they are written: what is accepted but deserves a look.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.notices: list[str] = []
        self._written: dict[Key, Key] = {}

    def carry(self, new: Key, old: Key) -> None:
        """From now on ``new`` means what was written as ``old``, and what is below ``new`` what is below ``old``."""
        self._written[new] = self.written(old)

    def written(self, key: Key) -> Key:
        """An option as the user wrote it: itself, or what it was translated from."""
        for end in range(len(key), -1, -1):
            if key[:end] in self._written:
                old = self._written[key[:end]]
                # what the translation has added to a section was not written anywhere
                return (*old, *key[end:]) if (*old, *key[end:]) in self else old
        return key

    def where(self, key: Key) -> str:
        """The place of an option, or of the nearest section around it that has one; '' if none has."""
        key = self.written(key)
        for end in range(len(key), -1, -1):
            if key[:end] in self:
                return self[key[:end]]
        return ""

    def label(self, key: Key) -> str:
        """An option for a message: ``network_g.upscale (options/x.yml:12)``."""
        where = self.where(key)
        name = dotted(self.written(key))
        return f"{name} ({where})" if where else name

    def drop(self, key: Key) -> None:
        """Forget an option and all below it."""
        for known in [k for k in self if k[: len(key)] == key]:
            del self[known]


def dotted(key: Key) -> str:
    """``("train", "optim_g", "lr")`` → ``train.optim_g.lr``."""
    return ".".join(map(str, key)) or "the option file"


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path for a message: relative to the working folder where it lies below it."""
    full = Path(path).resolve()
    try:
        return str(full.relative_to(Path.cwd()))
    except ValueError:
        return str(full)
