"""What a training state must hold, whoever has made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _are_names(value: Any) -> bool:
    """Names of files in one folder."""
    return isinstance(value, list) and all(isinstance(n, str) and n and not set(n) & set("/\\\0") for n in value)


def _are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and _are_names(list(value)) and all(isinstance(h, str) for h in value.values())


def _is_position(value: Any) -> bool:
    """Where the training data stands."""
    if value is None:
        return True
    if not isinstance(value, dict) or not _is_count(value.get("position", 0)):
        return False
    streams = value.get("streams", {})
    return isinstance(streams, dict) and all(
        isinstance(s, dict) and _is_count(s.get("epoch", 0)) and _is_count(s.get("position", 0))
        for s in streams.values()
    )


def _is_section(value: Any) -> bool:
    return isinstance(value, dict)


def _are_results(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(metrics, dict) for metrics in value.values()):
        return False
    return all(isinstance(result, dict) for metrics in value.values() for result in metrics.values())


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for item in value.items() for text in item)


def _is_run(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str) and _is_count(value.get("continuation"))


_REQUIRED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epoch": (_is_count, "a whole number from 0"),
    "iter": (_is_count, "a whole number from 0"),
    "optimizers": (_are_sections, "a list of dicts"),
    "schedulers": (_are_sections, "a list of dicts"),
}
_FURTHER: dict[str, tuple[Callable[[Any], bool], str]] = {  # BasicSR's states have none of these
    "networks": (_are_names, "a list of names of files"),
    "network_hashes": (_are_hashes, "a dict of names of files and their hashes"),
    "sampler": (_is_position, "the position of each training set"),
    "rng": (_are_sections, "a list of dicts"),
    "classes": (_is_section, "a dict"),
    "best_metric_results": (_are_results, "values and iterations by data set and metric"),
    "run": (_is_run, "a dict with an id and a number"),
    "options": (_is_section, "a dict"),
    "files": (_are_texts, "a dict of options and the hashes of their files"),
}


def what_is_wrong(state: Any, iteration: int | None) -> str | None:
    """Why something is not a training state, as the end of a sentence; None if it is one.

    Args:
        state: What a file held.
        iteration: The iteration by which the file is named; None where it has another name.
    """
    if not isinstance(state, dict) or not _REQUIRED.keys() <= state.keys():
        return f"it must hold {', '.join(_REQUIRED)}"
    for key, (fits, form) in {**_REQUIRED, **_FURTHER}.items():
        if key in state and not fits(state[key]):
            return f"its {key} must be {form}, not {_shown(state[key])}"
    if iteration is not None and state["iter"] != iteration:
        return f"it is of iteration {state['iter']}, and is named by iteration {iteration}"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}"
