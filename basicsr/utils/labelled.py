"""Errors that name the option that they concern."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

KINDS = (KeyError, FileNotFoundError, ImportError, OSError, ValueError)


@contextmanager
def labelled(option: str) -> Iterator[None]:
    """A block whose errors begin with an option: ``path.pretrain_network_g: …``.

    Kinds of errors that are not Python's own are left as they are, such as an OptionError, which names its options.

    Args:
        option: Its path in the options.
    """
    try:
        yield
    except KINDS as error:
        text = sentence_of(error)
        if type(error).__module__ != "builtins" or text.startswith(option):
            raise
        kind = next(kind for kind in KINDS if isinstance(error, kind))
        raise kind(f"{option}: {text}") from error


def sentence_of(error: BaseException) -> str:
    """What an error says: a KeyError's sentence without quotes."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
