"""Checks that concern several options together, and the files they name. The options' keys and types are known good."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Protocol

from .option_yaml import Key


class Reporter(Protocol):
    """Takes problems and notices."""

    def problem(self, key: Key, text: str) -> None: ...

    def notice(self, key: Key, text: str) -> None: ...


def cross_check(report: Reporter, opt: Mapping[str, Any], is_train: bool, check_files: bool) -> None:
    """Report what does not go together.

    Args:
        report: Takes the findings.
        opt: Options whose keys and types have been checked.
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


def _networks(opt: Mapping[str, Any]) -> list[str]:
    return [key.removeprefix("network_") for key, value in opt.items() if str(key).startswith("network_") and value]


def _check_networks(report: Reporter, opt: Mapping[str, Any]) -> None:
    names = _networks(opt)
    if not isinstance(opt.get("network_g"), dict):
        report.problem(("network_g",), "the section is missing; it describes the network to train or test")
    for key, value in (opt.get("path") or {}).items():
        for prefix in ("pretrain_network_", "strict_load_", "param_key_"):
            name = key.removeprefix(prefix)
            if name != key and name not in names:
                nearest = get_close_matches(name, names, n=1)
                hint = f"; did you mean '{prefix}{nearest[0]}'?" if nearest else ""
                if prefix == "pretrain_network_" and value is not None:
                    report.problem(("path", key), f"there is no network_{name} to load weights into{hint}")
                elif prefix != "pretrain_network_":
                    report.notice(("path", key), f"has no effect, since there is no network_{name}{hint}")
    for name, settings in (opt.get("runtime") or {}).items():
        if name not in names:
            report.problem(("runtime", name), f"there is no network_{name}; networks: {', '.join(names)}")
        elif settings and (settings.get("mean") is None) != (settings.get("std") is None):
            report.problem(("runtime", name), "mean and std are given together or not at all")


def _check_sizes(report: Reporter, opt: Mapping[str, Any]) -> None:
    scale = opt.get("scale")
    for name, dataset in opt["datasets"].items():
        gt_size = dataset.get("gt_size")
        if isinstance(gt_size, int) and scale and gt_size % scale:
            report.problem(("datasets", name, "gt_size"), f"{gt_size} is not a multiple of the scale {scale}")
        if (dataset.get("mean") is None) != (dataset.get("std") is None):
            report.problem(("datasets", name), "mean and std are given together or not at all")
    for key, network in opt.items():
        upscale = network.get("upscale") if str(key).startswith("network_") and isinstance(network, dict) else None
        if isinstance(upscale, int) and scale and upscale != scale:
            report.notice((key, "upscale"), f"is {upscale} while the scale is {scale}")


def _check_names(report: Reporter, opt: Mapping[str, Any]) -> None:
    """Results are kept by a dataset's name, so no two evaluation sets may share one."""
    sections: dict[str, str] = {}
    for section, dataset in opt["datasets"].items():
        name = dataset["name"]
        if section.startswith("train"):
            continue
        if name in sections:
            report.problem(("datasets", section, "name"), f"'{name}' is already the name of datasets.{sections[name]}")
        sections[name] = section


def _check_training(report: Reporter, opt: Mapping[str, Any]) -> None:
    if not any(name.startswith("train") for name in opt["datasets"]):
        report.problem(("datasets",), "there is no training set; name its section `train`")
    for section in ("train", "logger"):
        if not opt.get(section):
            report.problem((section,), "the section is missing; training needs it")
    if opt.get("train") and not any(key.startswith("optim_") for key in opt["train"]):
        report.problem(("train",), "there is no optimiser; name its section `optim_g`")
    validates = any(name.startswith("val") for name in opt["datasets"])
    if validates and not (opt.get("val") or {}).get("val_freq"):
        report.problem(("val",), "val_freq is missing: how often to validate on the val datasets")


def _check_files(report: Reporter, opt: Mapping[str, Any], is_train: bool) -> None:
    for name, dataset in opt["datasets"].items():
        if is_train == name.startswith("test"):
            continue  # not used in this run
        for key, value in dataset.items():
            if key.startswith(("dataroot", "meta_info")) and isinstance(value, str):
                _require(report, ("datasets", name, key), value)
    for key, value in (opt.get("path") or {}).items():
        if isinstance(value, str) and key.startswith(("pretrain_network_", "resume_state")) and "://" not in value:
            _require(report, ("path", key), value)


def _require(report: Reporter, key: Key, path: str) -> None:
    if not os.path.exists(os.path.expanduser(path)):
        report.problem(key, f"{path} does not exist (looked for from {os.getcwd()})")
