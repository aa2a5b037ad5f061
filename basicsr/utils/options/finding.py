"""What a check finds, and under which circumstances it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import InitErrorDetails, PydanticCustomError

from .errors import Key


class Finding(NamedTuple):
    """What is wrong with an option, or deserves a look.

    Attributes:
        key: The way to the option; in a section's own rules, from that section.
        text: A sentence without its subject, which is the option.
        is_notice: Whether the options can be used all the same.
    """

    key: Key
    text: str
    is_notice: bool = False


@dataclass(frozen=True)
class Setting:
    """Under which circumstances options are checked.

    Attributes:
        is_train: Whether they are to be used for training.
        recipe: The class that ``model_type`` names; None where there is none.
        is_open: Whether the recipe may read keys that are not declared.
    """

    is_train: bool
    recipe: Any = None
    is_open: bool = False


def refusal(sentence: str) -> PydanticCustomError:
    """The error that pydantic is to report with exactly this sentence."""
    return PydanticCustomError("option", "{sentence}", {"sentence": sentence})


def problem(key: Key, sentence: str, value: Any = None) -> InitErrorDetails:
    """A finding as an error of pydantic's."""
    return InitErrorDetails(type=refusal(sentence), loc=key, input=value)
