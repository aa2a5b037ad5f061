"""Check options before anything is built: every problem at once, each with its option, file, line and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from .errors import Key, Marks, OptionError
from .files_named import files_named
from .finding import Finding, Setting
from .registered import find_registered
from .registered_section import Registered
from .section import Section, sections_in
from .sections import Options
from .words import shown


def check_options(
    opt: Mapping[str, Any],
    marks: Marks,
    is_train: bool,
    check_files: bool = False,
    found_before: Sequence[str] = (),
) -> list[str]:
    """Check an option file's content.

    The signature of a registered class is the schema of the section that names it; our own sections are declared in
    :mod:`~basicsr.utils.options.sections`. A recipe or dataset class that declares its keys (a nested ``TrainOptions``
    or ``Options``) takes no others. One that does not, such as a plug-in written against BasicSR, may read further keys
    of its own: those are let through and named in the notices.

    Args:
        opt: The options; they are left as they are.
        marks: Where each option was written.
        is_train: Whether they are to be used for training.
        check_files: Whether data folders and weights must exist.
        found_before: Problems that are known already; they are raised together with those that are found here.

    Returns:
        The notices.

    Raises:
        OptionError: With every problem.
    """
    recipe, findings = _recipe(opt)
    is_open = recipe is None or "TrainOptions" not in vars(recipe)
    setting = Setting(is_train, recipe, is_open)
    try:
        options = Options.model_validate(dict(opt), context=setting)
    except ValidationError as error:
        findings += [Finding(tuple(e["loc"]), e["ctx"]["sentence"]) for e in error.errors(include_url=False)]
    else:
        findings += _notices(options)
    if check_files:
        findings += files_named(opt, is_train)
    problems = [*found_before, *(_sentence(finding, marks) for finding in findings if not finding.is_notice)]
    if problems:
        raise OptionError(problems)
    return [_sentence(finding, marks) for finding in findings]


def section_problems(section: Mapping[Any, Any], key: Key, model: type[Section], marks: Marks) -> list[str]:
    """What is wrong with the values of a section, each by itself.

    Args:
        section: The section.
        key: The way to it.
        model: The declaration.
        marks: Where each option was written.
    """
    try:
        model.model_validate(dict(section))
    except ValidationError as error:
        found = error.errors(include_url=False)
        return [_sentence(Finding((*key, *e["loc"]), e["ctx"]["sentence"]), marks) for e in found]
    return []


def _sentence(finding: Finding, marks: Marks) -> str:
    return f"{marks.label(finding.key)}: {finding.text}"


def _recipe(opt: Mapping[str, Any]) -> tuple[Any, list[Finding]]:
    name = opt.get("model_type")
    if not isinstance(name, str):
        wrong = [] if name is None else [Finding(("model_type",), f"must be the name of a recipe, not {shown(name)}")]
        return None, wrong
    try:
        return find_registered("model", name), []
    except KeyError as error:
        return None, [Finding(("model_type",), str(error.args[0]))]


def _notices(options: Section) -> Iterator[Finding]:
    """What rules notice, what nothing reads, and what no declaration knows and a plug-in may read, or build itself."""
    for key, section in sections_in(options):
        yield from (finding._replace(key=(*key, *finding.key)) for finding in section.notices)
        for name in section.passed_over:
            yield Finding((*key, name), "has no effect, here as in BasicSR", is_notice=True)
        if isinstance(section, Registered):
            values = {name: getattr(section, name) for name in section.model_fields_set}
            yield from (finding._replace(key=(*key, *finding.key)) for finding in section.advice(values))
        if isinstance(section, Registered) and section.target is None:
            try:
                find_registered(section.kind, section.type)
            except KeyError as error:
                yield Finding((*key, "type"), str(error.args[0]), is_notice=True)
        elif not isinstance(section, Registered) or section.kind == "dataset":
            for name in section.model_extra or ():
                nearest = section.nearest(name)
                hint = f"; did you mean '{nearest}'?" if nearest else ""
                text = f"not a key that is known here, left to your own class to read{hint}"
                yield Finding((*key, name), text, is_notice=True)
