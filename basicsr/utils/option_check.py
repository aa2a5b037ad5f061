"""Check options before anything is built: every problem at once, each with its option, file, line and remedy."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from typing_extensions import is_typeddict

from .option_cross_check import cross_check
from .option_schema import DatasetOptions, Options, Registered, Section, SupervisedLossOptions
from .option_shape import (
    KeySpec,
    Shape,
    all_registered,
    declares_its_keys,
    find_registered,
    shape_of_model,
    shape_of_registered,
    shape_of_training,
    shape_of_typed_dict,
)
from .option_trial import Refused, try_to_build
from .option_types import choices, describe, fits, has_huge_integer, shown
from .option_yaml import Key, Marks, OptionError

Further = Literal["problem", "notice"]
"""What a key outside a section's declaration is."""


@dataclass
class Report:
    """What a check found."""

    marks: Marks
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def problem(self, key: Key, text: str) -> None:
        self.problems.append(f"{self.marks.label(key)}: {text}")

    def notice(self, key: Key, text: str) -> None:
        self.notices.append(f"{self.marks.label(key)}: {text}")


def check_options(
    opt: Mapping[str, Any],
    marks: Marks,
    is_train: bool,
    check_files: bool = False,
    found_before: Sequence[str] = (),
) -> list[str]:
    """Check an option file's content.

    The signature of a registered class is the schema of the section that names it; our own sections are declared in
    `option_schema`. A recipe or dataset class that declares its keys (a nested ``TrainOptions`` or ``Options``)
    takes no others. One that does not, such as a plug-in written against BasicSR, may read further keys of its own:
    those are let through and named in the notices.

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
    report = Report(marks, list(found_before))
    recipe = _find(report, "model", opt.get("model_type"), ("model_type",))
    further: Further = "problem" if recipe is not None and declares_its_keys(recipe) else "notice"
    shape = shape_of_model(Options)
    shape.keys["datasets"] = KeySpec(Any)  # reported below when missing
    rest = {name: value for name, value in opt.items() if name not in ("train", "datasets")}
    _check_section(report, (), rest, shape, further)
    if opt.get("train") is not None:
        _check_train(report, opt["train"], shape_of_training(recipe), further)
    _check_datasets(report, opt.get("datasets"), is_train)
    cross_check(report, opt, is_train, check_files)
    if report.problems:
        raise OptionError(report.problems)
    return report.notices


def section_problems(section: Mapping[Any, Any], key: Key, model: type[Section], marks: Marks) -> list[str]:
    """What is wrong with those keys of a section that a model declares; all others are passed over.

    Args:
        section: The section.
        key: The way to it.
        model: The declaration.
        marks: Where each option was written.
    """
    report, shape = Report(marks), shape_of_model(model)
    declared = {name: value for name, value in section.items() if shape.find(name) is not None}
    _check_section(report, key, declared, shape, "problem")
    return report.problems


def _check_train(report: Report, train: Any, shape: Shape, further: Further) -> None:
    if not isinstance(train, dict):
        report.problem(("train",), f"must be a section, not {shown(train)}")
        return
    further_losses = {  # any section `<name>_opt` that names a loss is one more supervised loss
        name: section
        for name, section in train.items()
        if shape.find(name) is None and str(name).endswith("_opt") and isinstance(section, dict) and "type" in section
    }
    for name, section in further_losses.items():
        _check_registered(report, ("train", name), section, SupervisedLossOptions, further)
    train = {name: value for name, value in train.items() if name not in further_losses}
    _check_section(report, ("train",), train, shape, further)


def _check_datasets(report: Report, datasets: Any, is_train: bool) -> None:
    if not isinstance(datasets, dict) or not datasets:
        found = "is missing" if datasets is None else f"is {shown(datasets)}"
        report.problem(("datasets",), f"the section {found}; it must hold one section per dataset")
        return
    declarations = [getattr(dataset, "Options", DatasetOptions) for dataset in all_registered("dataset").values()]
    usual = {name for declared in declarations for name in shape_of_model(declared).keys}
    for name, section in datasets.items():
        key = ("datasets", name)
        phase = str(name).split("_")[0]
        if phase not in ("train", "val", "test"):
            nearest = get_close_matches(phase, ["train", "val", "test"], n=1)
            hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
            report.problem(key, f"a dataset's section is named train…, val… or test…, such as `val_1`{hint}")
        elif not isinstance(section, dict):
            report.problem(key, f"must be a section, not {shown(section)}")
        else:
            dataset = _find(report, "dataset", section.get("type"), (*key, "type"))
            declared = getattr(dataset, "Options", DatasetOptions)
            closed = dataset is not None and "Options" in vars(dataset)
            shape = shape_of_model(declared)
            if not closed:  # it reads what it likes, and most likely what datasets usually read
                shape.keys = {name: KeySpec(Any) for name in usual} | shape.keys
            _check_section(report, key, section, shape, "problem" if closed else "notice")
            if is_train and phase == "train":
                for required in declared.required_for_training:
                    if section.get(required) is None:
                        report.problem(key, f"a training set must have the key '{required}'")


def _find(report: Report, kind: str, name: Any, key: Key) -> Any:
    """The registered class, or None after reporting why there is none."""
    if not isinstance(name, str):
        if name is not None:
            report.problem(key, f"must be the name of a registered {kind}, not {shown(name)}")
        return None  # that it is missing is reported with the section's other keys
    try:
        return find_registered(kind, name)
    except KeyError as error:
        report.problem(key, str(error.args[0]))
        return None


def _check_section(report: Report, key: Key, section: Mapping[Any, Any], shape: Shape, further: Further) -> None:
    for name, value in section.items():
        path = (*key, name)
        known = shape.find(name)
        if known is not None:
            _check_value(report, path, value, known.annotation, further)
        elif not shape.takes_any:
            _unknown(report, path, shape, further)
    for name, known in shape.keys.items():
        if known.required and name not in section:
            report.problem(
                key, f"the key '{name}' is missing ({describe(known.annotation)}){_misspelt(name, section, shape)}"
            )


def _misspelt(name: str, section: Mapping[Any, Any], shape: Shape | None = None) -> str:
    """A hint at the key that was most likely meant to be a missing one; not one that has a meaning of its own."""
    unknown = [str(key) for key in section if shape is None or shape.find(key) is None]
    nearest = get_close_matches(name, unknown, n=1, cutoff=0.7)
    return f"; is '{nearest[0]}' a misspelling of it?" if nearest else ""


def _unknown(report: Report, key: Key, shape: Shape, further: Further) -> None:
    nearest = shape.nearest(key[-1])
    if further == "problem":
        hint = f"did you mean '{nearest}'?" if nearest else f"known: {', '.join(_known(shape)) or 'none'}"
        report.problem(key, f"unknown key; {hint}")
    else:
        hint = f"; did you mean '{nearest}'?" if nearest else ""
        report.notice(key, f"not a key that is known here, left to your own class to read{hint}")


def _known(shape: Shape) -> list[str]:
    return sorted([*shape.keys, *(pattern.replace(r"\w+", "<name>") for pattern in shape.patterns)])


def _check_value(report: Report, key: Key, value: Any, annotation: Any, further: Further) -> None:
    if get_origin(annotation) is Annotated and _holds_sections(annotation):
        annotation = get_args(annotation)[0]
    for arm in _arms(annotation):
        if isinstance(value, dict) and _is_section(arm):
            if not issubclass(arm, Section):
                _check_section(report, key, value, shape_of_typed_dict(arm), "problem")
            elif issubclass(arm, Registered):
                _check_registered(report, key, value, arm, further)
            else:
                _check_section(report, key, value, shape_of_model(arm), further)
            return
        container = dict if get_origin(arm) is dict else list
        if get_args(arm) and isinstance(value, container) and _holds_sections(arm):
            inner = get_args(arm)[-1 if container is dict else 0]
            for name, item in value.items() if isinstance(value, dict) else enumerate(value):
                _check_value(report, (*key, name), item, inner, further)
            return
    if not fits(annotation, value):
        nearest = get_close_matches(value, choices(annotation), n=1) if isinstance(value, str) else []
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        if has_huge_integer(value):
            hint = ", which needs more than 64 bits"
        report.problem(key, f"must be {describe(annotation)}, not {shown(value)}{hint}")


def _arms(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _is_section(annotation: Any) -> bool:
    return is_typeddict(annotation) or (isinstance(annotation, type) and issubclass(annotation, Section))


def _holds_sections(annotation: Any) -> bool:
    return _is_section(annotation) or any(_holds_sections(arg) for arg in get_args(annotation))


def _check_registered(
    report: Report, key: Key, section: dict[Any, Any], model: type[Registered], further: Further
) -> None:
    name = section.get("type")
    if name is None:
        hint = _misspelt("type", section)
        report.problem(key, f"the key 'type' is missing (the name of a registered {model.kind}){hint}")
        return
    if further == "notice" and isinstance(name, str) and model.kind in ("loss", "optimizer", "scheduler"):
        try:  # a plug-in's recipe may build these itself, by names of its own
            find_registered(model.kind, name)
        except KeyError as error:
            report.notice((*key, "type"), str(error.args[0]))
            return
    target = _find(report, model.kind, name, (*key, "type"))
    if target is not None:
        shape = shape_of_registered(model.kind, target, model)
        before = len(report.problems)
        # a registered class reads exactly its parameters, whoever's recipe builds it
        _check_section(report, key, section, shape, "problem")
        if len(report.problems) == before:
            _try_to_build(report, key, section, model.kind, target)


def _try_to_build(report: Report, key: Key, section: dict[Any, Any], kind: str, target: Any) -> None:
    try:
        try_to_build(kind, target, {name: value for name, value in section.items() if name != "type"})
    except Refused as refused:
        for path in refused.keys or [()]:
            value = functools.reduce(lambda inner, name: inner[name], path, section)
            given = shown(value) if path else "these options"
            report.problem((*key, *path), f"{target.__name__} cannot be built with {given}: {refused}")
