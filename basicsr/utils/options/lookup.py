"""Looking things up in options that may still be wrong: what is not what it should be is passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def section_of(opt: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    """A section, empty where there is none."""
    value = opt.get(name)
    return value if isinstance(value, dict) else {}


def datasets_of(opt: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The sections of ``datasets`` by name."""
    for name, dataset in section_of(opt, "datasets").items():
        if isinstance(dataset, dict):
            yield str(name), dataset


def has_training_set(opt: Mapping[Any, Any]) -> bool:
    """Whether the options are for training."""
    return any(str(name).startswith("train") for name in section_of(opt, "datasets"))


def network_names(opt: Mapping[Any, Any]) -> list[str]:
    """The suffixes of the networks that the options describe."""
    return [
        str(key).removeprefix("network_") for key, value in opt.items() if str(key).startswith("network_") and value
    ]


def terms_of(opt: Mapping[Any, Any]) -> dict[Any, Mapping[Any, Any]]:
    """The sections of ``train.kd_opt`` by name."""
    terms = section_of(section_of(opt, "train"), "kd_opt")
    return {name: term for name, term in terms.items() if isinstance(term, dict)}
