"""The folders and files that options name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from .annotations import strings_in
from .errors import Key
from .finding import Finding
from .lookup import datasets_and_sets_of, section_of
from .registered import find_registered, is_ours


def files_named(opt: Mapping[Any, Any], is_train: bool) -> Iterator[Finding]:
    """The data folders and weights that options name exist."""
    for way, dataset in datasets_and_sets_of(opt):
        lmdb = section_of(dataset, "io_backend").get("type") == "lmdb"
        ours = is_ours("dataset", dataset)
        for key, value in dataset.items():
            if str(key).startswith("dataroot"):
                several = value if isinstance(value, list) else [value]
                for place, folder in enumerate(several):
                    if isinstance(folder, str):
                        full_key = (*way, key, place) if isinstance(value, list) else (*way, key)
                        yield from _require(full_key, folder, "folder" if ours else None)
                        if lmdb and ours and os.path.isdir(os.path.expanduser(folder)):
                            yield from _require_lmdb(full_key, folder)
            elif str(key).startswith("meta_info") and isinstance(value, str):
                yield from _require((*way, key), value, "file" if ours else None)
    for key, value in section_of(opt, "path").items():
        if not isinstance(value, str) or "://" in value or value == "random":  # a frozen network's, without a file
            continue
        name = str(key).removeprefix("pretrain_network_")
        if name != key and is_train and not _may_be_used(opt, name):
            if not os.path.exists(os.path.expanduser(value)):
                text = f"{value} does not exist; no term or loss names network_{name}"
                yield Finding(("path", key), text, is_notice=True)
        elif name != key or str(key).startswith("resume_state"):
            yield from _require(("path", key), value, "file")


def _may_be_used(opt: Mapping[Any, Any], name: str) -> bool:
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


def _require(key: Key, path: str, kind: Literal["file", "folder"] | None) -> Iterator[Finding]:
    full = os.path.expanduser(path)
    if not path:
        yield Finding(key, "is empty")
    elif "\0" in path or not os.path.exists(full):
        yield Finding(key, f"{path} does not exist (looked for from {os.getcwd()})")
    elif kind is not None and not (os.path.isfile if kind == "file" else os.path.isdir)(full):
        yield Finding(key, f"{path} is not a {kind}")


def _require_lmdb(key: Key, path: str) -> Iterator[Finding]:
    full = os.path.expanduser(path)
    missing = [name for name in ("data.mdb", "meta_info.txt") if not os.path.isfile(os.path.join(full, name))]
    if not path.endswith(".lmdb"):
        yield Finding(key, f"{path}: the folder of an LMDB ends in .lmdb; for image files use io_backend.type disk")
    elif missing:
        yield Finding(key, f"{path} is not an LMDB made by create_lmdb.py: it lacks {' and '.join(missing)}")
