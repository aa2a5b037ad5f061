"""Which sections of ``datasets`` a recipe trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .registered import find_registered


def training_sets(datasets: Mapping[str, Any] | None) -> dict[str, Any]:
    """The sections of ``datasets`` that are training sets: by their ``phase``, or called ``train`` or ``train_<x>``."""
    return {
        name: section
        for name, section in (datasets or {}).items()
        if (section.get("phase") if isinstance(section, Mapping) else None) == "train"
        or str(name).split("_")[0] == "train"
    }


def declared_streams(model_type: str) -> tuple[str, ...]:
    """The training streams that a recipe declares; one that declares none, such as a plug-in's, has a single one.

    Raises:
        KeyError: If there is no such recipe.
        ValueError: If the declaration is not a tuple of names that sections of training sets can have.
    """
    streams = getattr(find_registered("model", model_type), "streams", ("train",))
    if not isinstance(streams, tuple) or not streams or len(set(streams)) < len(streams):
        raise ValueError(f"{model_type}.streams must be a tuple of different names, such as ('train',), not {streams}")
    for name in streams:
        if not isinstance(name, str) or name.split("_")[0] != "train":
            raise ValueError(f"{model_type}.streams: a training set is named train or train_<x>, not {name!r}")
    return streams


def sections_of_streams(model_type: str, sections: Sequence[str]) -> dict[str, str]:
    """Find the section of each stream of a recipe. A recipe with one stream takes one section, whatever its suffix.

    Args:
        model_type: The recipe.
        sections: The names of the training sets' sections in ``datasets``.

    Returns:
        Stream → section, in the order in which the recipe declares its streams.

    Raises:
        KeyError: If there is no such recipe.
        ValueError: If the sections are not what the recipe declares; says what would be right.
    """
    streams = declared_streams(model_type)
    if len(streams) == 1:
        if not sections:
            raise ValueError(f"there is no training set; name its section '{streams[0]}'")
        if len(sections) > 1:
            raise ValueError(
                f"{_listed(sections)} are {len(sections)} training sets, and {model_type} trains on one, "
                f"'{streams[0]}'; keep one of them, or choose a recipe that declares them as its streams"
            )
        return {streams[0]: sections[0]}
    missing = [name for name in streams if name not in sections]
    further = [name for name in sections if name not in streams]
    wrong = [f"'{name}' is missing" for name in missing]
    wrong += [f"'{name}' is not one of them: {'rename' if missing else 'remove'} it" for name in further]
    if wrong:
        raise ValueError(f"{model_type} trains on the sections {_listed(streams)}; {', and '.join(wrong)}")
    return {name: name for name in streams}


def _listed(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"
