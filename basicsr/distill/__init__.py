"""Knowledge distillation: a term is one registered class in one file (docs/distillation.md)."""

from __future__ import annotations

from typing import Any

from basicsr.utils.options.errors import Marks, OptionError
from basicsr.utils.registry import KD_REGISTRY

__all__ = ["build_term"]


def build_term(name: str, opt: dict) -> Any:
    """The distillation term that a section of ``train.kd_opt`` describes.

    Args:
        name: The section's name; the term is logged as ``l_<name>``.
        opt: ``type``, the arguments of that class, and the keys every term has: ``loss_weight``, ``start``, ``end``,
            ``ramp``, ``log_grad`` (see :class:`basicsr.utils.options.sections.Schedule`).

    Raises:
        KeyError: If no term of that type is registered.
        ValueError: If its arguments do not fit.
    """
    from basicsr.utils.options.check import section_problems
    from basicsr.utils.options.sections import KDTermOptions, Schedule

    term_class = KD_REGISTRY.get(opt["type"])
    problems = section_problems(opt, ("train", "kd_opt", name), KDTermOptions, Marks())
    if problems:
        raise OptionError(problems)
    options = dict(opt)
    del options["type"]
    shared = {key: options.pop(key) for key in Schedule.model_fields.keys() & options.keys()}
    try:
        term = term_class(**options)
    except TypeError as error:
        raise ValueError(f"train.kd_opt.{name}: {term_class.__name__}: {error}") from error
    term.name = name
    term.schedule = Schedule.of(shared)
    return term
