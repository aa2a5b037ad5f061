"""Translate options from one spelling into another, and remember how the user spelt them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .errors import Key, Marks, OptionError, dotted

_CRITERIA = {"L1Loss": "l1", "MSELoss": "l2", "CharbonnierLoss": "charbonnier"}


class Translation:
    """A copy of options in which keys of another spelling give way to ours.

    Args:
        opt: The options; they are left as they are.
        marks: Where they were written. It learns what each translated option was written as, so that messages about
            a translated option name the user's own key.

    Attributes:
        opt: The copy.
        problems: What could not be translated: one sentence for each.
    """

    def __init__(self, opt: Mapping[str, Any], marks: Marks | None = None) -> None:
        self.opt = copy.deepcopy(dict(opt))
        self.marks = Marks() if marks is None else marks
        self.problems: list[str] = []
        self._source = opt

    def refuse(self, key: Key, text: str) -> None:
        """Note a problem with an option."""
        self.problems.append(f"{self.marks.label(key)}: {text}")

    def has(self, key: Key) -> bool:
        """Whether the copy has an option, be it ``~``."""
        return key[-1] in (self._section(key[:-1]) or {})

    def take(self, key: Key) -> Any:
        """Remove an option from the copy; returns its value, None where it is absent."""
        section = self._section(key[:-1])
        return None if section is None else section.pop(key[-1], None)

    def put(self, key: Key, value: Any, source: Key, parts: Mapping[str, Key] | None = None) -> None:
        """Give an option its translated value.

        Where the user has given that option as well, this is a problem, and the user's value stays.

        Args:
            key: The option in our spelling.
            value: Its value.
            source: The option that it is the translation of. What is below ``key`` comes from what has the same name
                below ``source``, or else from ``source`` as a whole.
            parts: Where else a key of the section ``value`` comes from.
        """
        if not self._is_free(key, source):
            return
        section = self.opt
        for name in key[:-1]:
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
            if not isinstance(section, dict):
                return  # the check of our options says what is wrong with it
        section[key[-1]] = value
        self._carry(key, value, source, parts or {})

    def rename(self, source: Key, key: Key) -> None:
        """Give an option another name within its section; a problem where that name is taken."""
        if not self._is_free(key, source):
            self.take(source)
            return
        section = self._section(source[:-1])
        items = [(key[-1] if name == source[-1] else name, value) for name, value in section.items()]
        section.clear()
        section.update(items)
        self._carry(key, section[key[-1]], source, {})

    def result(self) -> dict[str, Any]:
        """The translated options.

        Raises:
            OptionError: If something could not be translated.
        """
        if self.problems:
            raise OptionError(self.problems)
        return self.opt

    def _section(self, key: Key) -> dict[str, Any] | None:
        section: Any = self.opt
        for name in key:
            section = section.get(name) if isinstance(section, dict) else None
        return section if isinstance(section, dict) else None

    def _is_free(self, key: Key, source: Key) -> bool:
        if self.has(key):
            other = self.marks.label(key)
            self.refuse(source, f"is read as {dotted(key)}, and {other} is given as well; remove one of them")
        return not self.has(key)

    def _carry(self, key: Key, value: Any, source: Key, parts: Mapping[str, Key]) -> None:
        self.marks.carry(key, source)
        for name in value if isinstance(value, dict) else ():
            part = parts.get(name, (*source, name))
            if self._was_given(part):
                self.marks.carry((*key, name), part)

    def _was_given(self, key: Key) -> bool:
        value: Any = self._source
        for name in key:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        return True


def criterion_of(loss: Mapping[str, Any]) -> str:
    """The ``criterion`` of ``LogitsKD`` that computes what a pixel loss of BasicSR does.

    Args:
        loss: The loss's section; its ``loss_weight`` is passed over.

    Raises:
        ValueError: If there is none; says what is expected.
    """
    criterion = _CRITERIA.get(loss.get("type"))
    further = sorted(str(name) for name in loss.keys() - {"type", "loss_weight", "reduction"})
    if criterion is not None and not further and loss.get("reduction", "mean") == "mean":
        return criterion
    if criterion is None:
        found = loss.get("type")
    else:
        found = f"with {further[0]}" if further else f"reduction: {loss['reduction']}"
    raise ValueError(
        f"expected L1Loss, MSELoss or CharbonnierLoss with loss_weight, reduction: mean and no more, not {found}"
    )
