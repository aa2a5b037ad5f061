"""From an option file to checked options; published spellings are translated before the check.

A recipe that takes option files in a published dialect declares the dialect's keys of ``train``, and how options that
hold them are translated::

    class DCKDModel(KDModel):
        class DialectOptions(sections.Section):
            ce_opt: CategoryOptions | None = None

        @staticmethod
        def translate(opt, marks=None):
            translation = Translation(opt, marks)
            category = translation.take(("train", "ce_opt"))
            if category:
                translation.put(("train", "kd_opt", "ce"), {"type": "DMM", ...}, ("train", "ce_opt"))
            return translation.result()

``translate`` leaves its argument as it is, and options that are in our form already unchanged.
"""

from __future__ import annotations

import copy
import os
from typing import Any

from .check import check_options, section_problems
from .errors import Marks, OptionError
from .files import import_modules, load_options
from .forks import translate_forks
from .legacy import modernise
from .lookup import has_training_set, section_of
from .registered import find_registered
from .translation import Translation


def read_options(
    path: str | os.PathLike[str],
    force: list[str] | tuple[str, ...] = (),
    is_train: bool | None = None,
    check_files: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Load an option file, import what it names, translate other spellings into ours, and check the result.

    Nothing is built and no process group is started.

    Args:
        path: The option file.
        force: Overrides, as for ``--force_yml``.
        is_train: Whether it is to be used for training; when None, whether it has a training set.
        check_files: Whether data folders and weights must exist.

    Returns:
        The options in our form, and notices: sentences on what was accepted but deserves a look.

    Raises:
        OptionError: With a sentence for everything that is wrong.
    """
    opt, marks = load_options(path, force)
    opt = copy.deepcopy(opt)
    notices = list(dict.fromkeys(marks.notices)) + modernise(opt, marks)  # a base file may be read twice
    import_modules(opt, marks)
    if is_train is None:
        is_train = has_training_set(opt)
    opt, more, problems = translate_dialects(opt, marks)
    return opt, notices + more + check_options(opt, marks, is_train, check_files, problems)


def translate_dialects(opt: dict[str, Any], marks: Marks) -> tuple[dict[str, Any], list[str], list[str]]:
    """Translate private forks' keys and the recipe's dialect.

    Where the dialect's own keys are wrong, or cannot be translated, they stay as they are.

    Args:
        opt: The options, with the user's modules imported; they are left as they are.
        marks: Where each option was written; learns what the translated ones were written as.

    Returns:
        The options in our form; notices; and what was found to be wrong with what was translated. (The check of
        options knows the keys of dialects, and says what is wrong with those that were not.)
    """
    try:
        recipe = find_registered("model", opt.get("model_type", ""))
    except (KeyError, TypeError):
        return opt, [], []  # the check says what is wrong with `model_type`
    translation = Translation(opt, marks)
    notices, problems = translate_forks(translation, recipe), translation.problems
    opt = translation.opt
    dialect = getattr(recipe, "DialectOptions", None)
    train = section_of(opt, "train")
    own = {key: value for key, value in train.items() if dialect is not None and key in dialect.model_fields}
    if dialect is None or section_problems(own, ("train",), dialect, marks):
        return opt, notices, problems
    try:
        opt = recipe.translate(opt, marks)
    except OptionError as error:
        problems = problems + error.problems
    return opt, notices, problems
