"""Names that become folders and files, and the files that options name."""

from __future__ import annotations

import inspect
import os
from typing import Any, Literal

from .option_report import Reporter, Section, datasets_of, is_ours, section_of
from .option_shape import find_registered
from .option_types import shown, strings_in
from .option_yaml import Key


def check_names(report: Reporter, opt: Section) -> None:
    """Names that become folders and files; results are kept by a dataset's name, so no two may share one."""
    _check_file_name(report, ("name",), opt.get("name"))
    _check_file_name(report, ("val", "suffix"), section_of(opt, "val").get("suffix"))
    sections: dict[Any, str] = {}
    for section, dataset in datasets_of(opt):
        name = dataset.get("name")
        key = ("datasets", section, "name")
        _check_file_name(report, key, name)
        if section.startswith("train") or not isinstance(name, str):
            continue
        if name in sections:
            report.problem(key, f"'{name}' is already the name of datasets.{sections[name]}")
        sections[name] = section


def _check_file_name(report: Reporter, key: Key, name: Any) -> None:
    if not isinstance(name, str):
        return
    if not name.strip() or name in (".", "..") or len(name.encode()) > 200 or set(name) & set("/\\\0\n\r\t"):
        report.problem(key, f"must serve as the name of a folder (not empty, no / or \\), and {shown(name)} does not")


def check_files(report: Reporter, opt: Section, is_train: bool) -> None:
    for name, dataset in datasets_of(opt):
        lmdb = section_of(dataset, "io_backend").get("type") == "lmdb"
        ours = is_ours("dataset", dataset)
        for key, value in dataset.items():
            if not isinstance(value, str):
                continue
            if str(key).startswith("dataroot"):
                _require(report, ("datasets", name, key), value, "folder" if ours else None)
                if lmdb and ours and os.path.isdir(os.path.expanduser(value)):
                    _require_lmdb(report, ("datasets", name, key), value)
            elif str(key).startswith("meta_info"):
                _require(report, ("datasets", name, key), value, "file" if ours else None)
    for key, value in section_of(opt, "path").items():
        if not isinstance(value, str) or "://" in value or value == "random":  # a frozen network's, without a file
            continue
        name = str(key).removeprefix("pretrain_network_")
        if name != key and is_train and not _may_be_used(opt, name):
            if not os.path.exists(os.path.expanduser(value)):
                report.notice(("path", key), f"{value} does not exist; no term or loss names network_{name}")
        elif name != key or str(key).startswith("resume_state"):
            _require(report, ("path", key), value, "file")


def _may_be_used(opt: Section, name: str) -> bool:
    """Whether a training may build ``network_<name>``: frozen ones that no term or loss names are not built."""
    if name == "t" or not is_ours("model", {"type": opt.get("model_type")}):
        return True
    train = section_of(opt, "train")
    terms = [term for term in section_of(train, "kd_opt").values() if isinstance(term, dict)]
    named = {name for term in terms for name in _defaults(term.get("type"))}
    return name in find_registered("model", opt["model_type"]).trained or name in named | strings_in(train)


def _defaults(term: Any) -> set[str]:
    """What the parameters of a term name by default."""
    try:
        parameters = inspect.signature(find_registered("distillation term", term)).parameters.values()
    except (KeyError, TypeError):
        return set()  # that there is no such term has been reported
    return {parameter.default for parameter in parameters if isinstance(parameter.default, str)}


def _require(report: Reporter, key: Key, path: str, kind: Literal["file", "folder"] | None) -> None:
    full = os.path.expanduser(path)
    if not path:
        report.problem(key, "is empty")
    elif "\0" in path or not os.path.exists(full):
        report.problem(key, f"{path} does not exist (looked for from {os.getcwd()})")
    elif kind is not None and not (os.path.isfile if kind == "file" else os.path.isdir)(full):
        report.problem(key, f"{path} is not a {kind}")


def _require_lmdb(report: Reporter, key: Key, path: str) -> None:
    full = os.path.expanduser(path)
    missing = [name for name in ("data.mdb", "meta_info.txt") if not os.path.isfile(os.path.join(full, name))]
    if not path.endswith(".lmdb"):
        report.problem(key, f"{path}: the folder of an LMDB ends in .lmdb; for image files use io_backend.type disk")
    elif missing:
        report.problem(key, f"{path} is not an LMDB made by create_lmdb.py: it lacks {' and '.join(missing)}")
