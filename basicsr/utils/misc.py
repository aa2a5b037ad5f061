"""Time stamps, folders of a run, seeds, sizes."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .dist_util import master_only
from .files import UNREADABLE_FOLDER, kind_of, require_writable


def get_time_str() -> str:
    """The local time as ``YYYYmmdd_HHMMSS``."""
    return time.strftime("%Y%m%d_%H%M%S", time.localtime())


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, on every device."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def scandir(
    dir_path: str,
    suffix: str | tuple[str, ...] | None = None,
    recursive: bool = False,
    full_path: bool = False,
    skipped: Callable[[str, str], None] | None = None,
) -> Iterator[str]:
    """Files of a folder, in sorted order; hidden ones, and what is not a file, are left out.

    Args:
        dir_path: The folder.
        suffix: Only names that end in this (or one of these).
        recursive: Whether to descend into sub-folders.
        full_path: Whether to yield full paths, or paths relative to ``dir_path``.
        skipped: Called with the path and the kind of each entry that is neither a file nor a folder (a FIFO, a device,
            a link to nothing), of a sub-folder that cannot be read, and of a link to a folder that it lies in.
    """
    if suffix is not None and not isinstance(suffix, (str, tuple)):
        raise TypeError(f"suffix must be a string or a tuple of strings, not {type(suffix).__name__}")

    def shown(path: str) -> str:
        return path if full_path else os.path.relpath(path, dir_path)

    def skip(path: str, kind: str) -> None:
        if skipped is not None:
            skipped(shown(path), kind)

    def walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError:
            if not above:
                raise
            skip(folder, UNREADABLE_FOLDER)
            return
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            skip(folder, "a link to a folder that it lies in")
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            kind = "a file" if _is_plain_file(entry) else kind_of(entry.path)
            if kind == "a file":
                if suffix is None or entry.path.endswith(suffix):
                    yield shown(entry.path)
            elif kind not in ("a folder", UNREADABLE_FOLDER):
                skip(entry.path, kind)
            elif recursive:
                yield from walk(entry.path, (*above, identity))

    return walk(str(dir_path), ())


def _is_plain_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a file, without asking the file system again where it has said so."""
    return entry.is_file(follow_symlinks=False)


def mkdir_and_rename(path: str) -> None:
    """Make a new folder; an existing one is renamed ``<path>_archived_<time>`` first."""
    if os.path.exists(path):
        archive(path)
    os.makedirs(path)


def archive(path: str) -> str:
    """Rename a folder ``<path>_archived_<time>``; returns its new path."""
    archived = f"{path}_archived_{get_time_str()}"
    while os.path.exists(archived):
        time.sleep(0.1)
        archived = f"{path}_archived_{get_time_str()}"
    print(f"{path} exists already; it is renamed to {archived}", flush=True)
    shutil.move(path, archived)
    return archived


@master_only
def make_exp_dirs(opt: dict) -> None:
    """Make the folders of a run: ``experiments_root`` when training, ``results_root`` when testing, and those below.

    Raises:
        OptionError: If nothing can be written there.
    """
    from .options.errors import OptionError

    paths = dict(opt["path"])
    key = "experiments_root" if opt["is_train"] else "results_root"
    try:
        require_writable(os.path.dirname(os.path.abspath(paths[key])))
    except OSError as error:
        raise OptionError(f"path.{key}: {error}; name another folder, or make this one writable") from error
    mkdir_and_rename(paths.pop(key))
    for key, path in paths.items():
        if key in ("models", "training_states", "visualization"):
            os.makedirs(path, exist_ok=True)


def check_resume(opt: dict, resume_iter: int) -> None:
    """Point ``path.pretrain_network_<x>`` at the networks that a run saved at an iteration.

    Networks without such a file (frozen ones) and those in ``path.ignore_resume_networks`` keep their paths. A resumed
    network takes the trained weights, ``params``, whatever the pre-trained file's key was.

    Args:
        opt: The options, changed in place.
        resume_iter: The iteration.
    """
    path = opt["path"]
    ignored = path.get("ignore_resume_networks") or []
    ignored = [ignored] if isinstance(ignored, str) else ignored
    for network in [key for key in opt if key.startswith("network_")]:
        name = network.removeprefix("network_")
        saved = Path(path["models"]) / f"net_{name}_{resume_iter}.pth"
        if network not in ignored and saved.is_file():
            path[f"pretrain_{network}"] = str(saved)
            path[f"param_key_{name}"] = "params"
            path[f"strict_load_{name}"] = True


def sizeof_fmt(size: float, suffix: str = "B") -> str:
    """A size in bytes for people: ``1536`` → ``'1.5 KB'``."""
    for unit in ["", "K", "M", "G", "T", "P", "E", "Z"]:
        if abs(size) < 1024.0:
            return f"{size:3.1f} {unit}{suffix}"
        size /= 1024.0
    return f"{size:3.1f} Y{suffix}"
