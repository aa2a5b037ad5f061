"""Globs over the dotted paths of a network's modules."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"(?P<any_parts_dot>\*\*\.)|(?P<any_parts>\*\*)|(?P<any>\*)|(?P<one>\?)"
    r"|\[(?P<class>!?\]?[^\]]*)\]|\{(?P<choice>[^{}]*)\}|(?P<literal>.)"
)


def compile_glob(pattern: str) -> re.Pattern[str]:
    """The regular expression, for ``fullmatch``, of a path or glob.

    ``*`` stands for one part of a path or a piece of it, ``**`` for any number of parts, ``?`` for one character,
    ``[246]``, ``[0-3]`` and ``[!0]`` for one character of a class as in :mod:`fnmatch`, ``{4,10}`` for one of several
    words. None but ``**`` matches a dot, save for one written inside ``{}``.

    Raises:
        ValueError: If a class is not one, such as ``[3-1]``.
    """
    try:
        return re.compile(_translate(pattern))
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a valid glob: {error}") from error


def _translate(pattern: str) -> str:
    return "".join(_translate_token(match) for match in _TOKEN.finditer(pattern))


def _translate_token(match: re.Match[str]) -> str:
    kind = match.lastgroup
    text = match[kind]
    if kind == "class":
        negated = text.startswith("!")
        members = re.sub(r"([\\\[\]^&~|])", r"\\\1", text[negated:])
        return rf"(?!\.)[{'^' * negated}{members}]"
    if kind == "choice":
        return f"(?:{'|'.join(map(_translate, text.split(',')))})"
    if kind == "literal":
        return re.escape(text)
    return {"any_parts_dot": r"(?:.*\.)?", "any_parts": ".*", "any": r"[^.]*", "one": r"[^.]"}[kind]
