"""Checks that concern several options together, and the files they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Protocol

from .option_yaml import Key

Section = Mapping[Any, Any]


class Reporter(Protocol):
    """Takes problems and notices."""

    def problem(self, key: Key, text: str) -> None: ...

    def notice(self, key: Key, text: str) -> None: ...


def cross_check(report: Reporter, opt: Section, is_train: bool, check_files: bool) -> None:
    """Report what is missing or does not go together.

    Values of a wrong type are passed over: they have been reported.

    Args:
        report: Takes the findings.
        opt: The options.
        is_train: Whether they are to be used for training.
        check_files: Whether data folders and weights must exist.
    """
    _check_networks(report, opt)
    _check_sizes(report, opt)
    _check_names(report, opt)
    if is_train:
        _check_training(report, opt)
    if check_files:
        _check_files(report, opt, is_train)


def _section(opt: Section, name: str) -> Section:
    value = opt.get(name)
    return value if isinstance(value, dict) else {}


def _datasets(opt: Section) -> Iterator[tuple[str, Section]]:
    for name, dataset in _section(opt, "datasets").items():
        if isinstance(dataset, dict):
            yield str(name), dataset


def _check_networks(report: Reporter, opt: Section) -> None:
    names = [
        str(key).removeprefix("network_") for key, value in opt.items() if str(key).startswith("network_") and value
    ]
    if not isinstance(opt.get("network_g"), dict):
        report.problem((), "the section 'network_g' is missing; it describes the network to train or test")
    for key, value in _section(opt, "path").items():
        for prefix in ("pretrain_network_", "strict_load_", "param_key_"):
            name = str(key).removeprefix(prefix)
            if name == key or name in names:
                continue
            nearest = get_close_matches(name, names, n=1)
            hint = f"; did you mean '{prefix}{nearest[0]}'?" if nearest else ""
            if prefix != "pretrain_network_":
                report.notice(("path", key), f"has no effect, since there is no network_{name}{hint}")
            elif value is not None:
                report.problem(("path", key), f"there is no network_{name} to load weights into{hint}")
    for name, settings in _section(opt, "runtime").items():
        if name not in names:
            report.problem(("runtime", name), f"there is no network_{name}; networks: {', '.join(names)}")
        _check_normalisation(report, ("runtime", name), settings)


def _check_normalisation(report: Reporter, key: Key, section: Any) -> None:
    if isinstance(section, dict) and (section.get("mean") is None) != (section.get("std") is None):
        report.problem(key, "mean and std are given together or not at all")


def _check_sizes(report: Reporter, opt: Section) -> None:
    scale = opt.get("scale")
    scale = scale if isinstance(scale, int) and scale > 0 else 1
    for name, dataset in _datasets(opt):
        gt_size = dataset.get("gt_size")
        if isinstance(gt_size, int) and (gt_size < 1 or gt_size % scale):
            near = max(gt_size // scale, 1) * scale
            report.problem(
                ("datasets", name, "gt_size"), f"must be a multiple of the scale {scale}, such as {near}, not {gt_size}"
            )
        _check_normalisation(report, ("datasets", name), dataset)
    for key, network in opt.items():
        upscale = network.get("upscale") if str(key).startswith("network_") and isinstance(network, dict) else None
        if isinstance(upscale, int) and "scale" in opt and upscale != scale:
            report.notice((key, "upscale"), f"is {upscale} while the scale is {scale}")


def _check_names(report: Reporter, opt: Section) -> None:
    """Results are kept by a dataset's name, so no two evaluation sets may share one."""
    sections: dict[Any, str] = {}
    for section, dataset in _datasets(opt):
        name = dataset.get("name")
        if section.startswith("train") or not isinstance(name, str):
            continue
        if name in sections:
            report.problem(("datasets", section, "name"), f"'{name}' is already the name of datasets.{sections[name]}")
        sections[name] = section


def _check_training(report: Reporter, opt: Section) -> None:
    names = [name for name, _ in _datasets(opt)]
    if names and not any(name.startswith("train") for name in names):
        report.problem(("datasets",), "there is no training set; name its section 'train'")
    for section in ("train", "logger"):
        if opt.get(section) is None:
            report.problem((), f"the section '{section}' is missing; training needs it")
    if _section(opt, "train") and not any(str(key).startswith("optim_") for key in opt["train"]):
        report.problem(("train",), "there is no optimiser; name its section 'optim_g'")
    if any(name.startswith("val") for name in names) and _section(opt, "val").get("val_freq") is None:
        report.problem(("val",), "the key 'val_freq' is missing (iterations between validations on the val datasets)")


def _check_files(report: Reporter, opt: Section, is_train: bool) -> None:
    for name, dataset in _datasets(opt):
        if is_train == name.startswith("test"):
            continue  # not used in this run
        for key, value in dataset.items():
            if str(key).startswith(("dataroot", "meta_info")) and isinstance(value, str):
                _require(report, ("datasets", name, key), value)
    for key, value in _section(opt, "path").items():
        if isinstance(value, str) and str(key).startswith(("pretrain_network_", "resume_state")) and "://" not in value:
            _require(report, ("path", key), value)


def _require(report: Reporter, key: Key, path: str) -> None:
    if not os.path.exists(os.path.expanduser(path)):
        report.problem(key, f"{path} does not exist (looked for from {os.getcwd()})")
