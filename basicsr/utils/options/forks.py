"""Private forks' keys (``network_g_teacher``, ``distill_opt``, ``distill_weight``), read as ours."""

from __future__ import annotations

from typing import Any

from .check import section_problems
from .errors import Key, dotted
from .lookup import section_of
from .sections import LossOptions, Section, TrainOptions
from .translation import Translation, criterion_of


class ForkOptions(Section):
    """The forks' keys of ``train``."""

    distill_opt: LossOptions | None = None
    """Distance of the student's and the teacher's output."""
    distill_weight: float | None = None
    """Factor of `distill_opt`; alone, the weight of an L1 distance."""


_RENAMED: dict[Key, Key] = {
    ("network_g_teacher",): ("network_t",),
    ("path", "pretrain_network_g_teacher"): ("path", "pretrain_network_t"),
    ("path", "strict_load_g_teacher"): ("path", "strict_load_t"),
    ("path", "param_key_g_teacher"): ("path", "param_key_t"),
}
_LOSS, _WEIGHT, _TERM = ("train", "distill_opt"), ("train", "distill_weight"), ("train", "kd_opt", "distill")


def translate_forks(translation: Translation, recipe: Any) -> list[str]:
    """Read the forks' keys as ``network_t`` and a term ``LogitsKD`` named ``distill``.

    A recipe that reads such keys itself keeps them: one that declares them, or a plug-in that declares no keys and so
    may read any.

    Args:
        translation: The options.
        recipe: The class that ``model_type`` names.

    Returns:
        A sentence for each of the keys.
    """
    declarations = [getattr(recipe, "TrainOptions", TrainOptions), getattr(recipe, "DialectOptions", Section)]
    declared = {key for declaration in declarations for key in declaration.model_fields}
    if "TrainOptions" not in vars(recipe) or not declared.isdisjoint(ForkOptions.model_fields):
        given = [key for key in (*_RENAMED, _LOSS, _WEIGHT) if translation.has(key)]
        return [
            f"{translation.marks.label(key)} is left to {recipe.__name__}, which may read it itself" for key in given
        ]
    notices = []
    for old, new in _RENAMED.items():
        if translation.has(old):
            notices.append(f"{translation.marks.label(old)} is another spelling of {dotted(new)} and is read as that")
            translation.rename(old, new)
    return notices + _translate_loss(translation)


def _translate_loss(translation: Translation) -> list[str]:
    train = section_of(translation.opt, "train")
    given = [key for key in (_LOSS, _WEIGHT) if key[-1] in train]
    own = {key: value for key, value in train.items() if key in ForkOptions.model_fields}
    problems = section_problems(own, ("train",), ForkOptions, translation.marks)
    translation.problems += problems
    loss, weight = translation.take(_LOSS), translation.take(_WEIGHT)
    if problems or not given:
        return []
    if _LOSS in given and loss is None:
        return [f"{translation.marks.label(key)} has no effect" for key in given]
    loss = loss or {"type": "L1Loss"}
    try:
        term = {"type": "LogitsKD", "criterion": criterion_of(loss), "loss_weight": loss.get("loss_weight", 1.0)}
    except ValueError as error:
        translation.refuse(_LOSS, str(error))
        return []
    if weight is not None:
        term["loss_weight"] *= weight
    translation.put(_TERM, term, given[0], {"criterion": (*_LOSS, "type")})
    return [f"{translation.marks.label(key)} is read as part of {dotted(_TERM)}: {term}" for key in given]
