"""From an option file to options that have been checked."""

from __future__ import annotations

import copy
import os
from typing import Any

from .check import check_options
from .dialects import translate_dialects
from .files import import_modules, load_options
from .legacy import modernise


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
    notices = modernise(opt, marks)
    import_modules(opt, marks)
    if is_train is None:
        datasets = opt.get("datasets")
        is_train = isinstance(datasets, dict) and any(str(name).startswith("train") for name in datasets)
    opt, more, problems = translate_dialects(opt, marks)
    return opt, notices + more + check_options(opt, marks, is_train, check_files, problems)
