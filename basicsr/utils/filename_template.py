"""Templates of file names: ``{}x4`` makes ``0001x4`` of ``0001``."""

from __future__ import annotations

import re
from string import Formatter

# Fill, alignment and a width of at most three digits: a wider one would fill the memory.
_FORMAT = re.compile(r"(?:[^{}]?[<>=^])?0?\d{0,3}[sd]?")


def is_filename_template(template: str, fields: tuple[str, ...] = ()) -> bool:
    """Whether a template holds ``{}`` once, and further fields only if they are known.

    Args:
        template: The text. A field may have a fill, an alignment and a width, as in ``{:0>4}``.
        fields: The names of further fields that may occur, as in ``{}x{scale}``.
    """
    try:
        parts = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError:
        return False
    plain = all(_FORMAT.fullmatch(width or "") and not conversion for _, width, conversion in parts)
    names = [name for name, _, _ in parts]
    return plain and sum(name in ("", "0") for name in names) == 1 and all(n in ("", "0", *fields) for n in names)


def require_filename_template(template: str, fields: tuple[str, ...] = ()) -> None:
    """Refuse what :func:`is_filename_template` does not take.

    Raises:
        ValueError: With an example of what would be right.
    """
    if not is_filename_template(template, fields):
        shown = template if len(template) <= 60 else template[:57] + "…"
        known = "".join(f", and may hold {{{field}}}" for field in fields)
        raise ValueError(f"the template of file names '{shown}' must hold {{}} once{known}, such as '{{}}x4'")
