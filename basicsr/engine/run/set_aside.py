"""Sets the checkpoints of another continuation aside, so that a run never mixes them with its own.

A run that goes on from iteration 14 while its folder holds a checkpoint of iteration 35 moves the latter to
``aside/<time>_after_14/``, with the folders ``models`` and ``training_states`` in it, where it can still be continued
from. A file in the run's folder says so before the first checkpoint is moved, and is deleted after the last, so that a
run that is killed in between does not take one that is still to be moved.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from basicsr.utils.atomic_file import atomic_write
from basicsr.utils.files import not_a_file
from basicsr.utils.logger import get_root_logger
from basicsr.utils.misc import get_time_str

NOTE = "set_aside.json"
_BY_NAME = re.compile(r".+_(best|latest)\.pth")


def iteration_of(file: Path) -> int | None:
    """The iteration by which a training state is named; None for another file."""
    return int(file.stem) if re.fullmatch(r"[0-9]+\.state", file.name) else None


def last_valid(root: Path) -> int | None:
    """After which iteration the checkpoints in a run's folder are of another continuation, which was being set aside
    when the run was killed; None if there is no such thing."""
    note = _read_note(root)
    return None if note is None else note["after"]


def set_aside(root: Path, states: Path, models: Path, chosen: Path, after: int) -> None:
    """Move later checkpoints than the one that the run continues from.

    Args:
        root: The run's folder.
        states: Its training states.
        models: Its networks.
        chosen: The training state that the run continues from.
        after: Its iteration; -1 if it is another run's, so that all checkpoints are moved.
    """
    note = _read_note(root)
    later = sorted((iteration, file) for file in states.iterdir() if (iteration := iteration_of(file) or 0) > after)
    if later:
        if note is None:
            name = f"{get_time_str()}_after_{after}" if after >= 0 else f"{get_time_str()}_all"
            note = {"into": str(Path("aside") / _unused(root / "aside", name))}
        atomic_write(json.dumps({**note, "after": after}), root / NOTE)
        _move(root / note["into"], states, models, chosen, later)
        numbers = ", ".join(str(iteration) for iteration, _ in later)
        get_root_logger().warning(
            f"The run continues from {chosen.name}{'' if after >= 0 else ' of another run'}, and its folder holds "
            f"other checkpoints ({numbers}): they are set aside in {root / note['into']}."
        )
    (root / NOTE).unlink(missing_ok=True)


def _move(into: Path, states: Path, models: Path, chosen: Path, later: list[tuple[int, Path]]) -> None:
    for kind in (models, states):
        (into / kind.name).mkdir(parents=True, exist_ok=True)
    is_own = chosen.parent.resolve() == states.resolve()
    moment = os.stat(chosen).st_mtime if is_own else 0.0
    for network in list(models.iterdir()):
        # what is called best or latest, and has been written since the state was
        if _BY_NAME.fullmatch(network.name) and network.lstat().st_mtime > moment:
            os.replace(network, into / models.name / network.name)
    for iteration, state in later:  # a state goes last, since its networks are found by it
        for network in models.glob(f"*_{iteration}.pth"):
            os.replace(network, into / models.name / network.name)
        os.replace(state, into / states.name / state.name)


def _unused(folder: Path, name: str) -> str:
    """A name that nothing in a folder has."""
    names = [name, *(f"{name}_{number}" for number in range(2, 1000))]
    return next(each for each in names if not (folder / each).exists())


def _read_note(root: Path) -> dict[str, Any] | None:
    if not_a_file(root / NOTE) is not None:
        return None
    try:
        note = json.loads((root / NOTE).read_text(encoding="utf-8"))
    except ValueError:
        return None  # it is not one of ours, which are written atomically
    into = note.get("into") if isinstance(note, dict) else None
    fits = isinstance(into, str) and re.fullmatch(r"aside[/\\]\w+", into) and isinstance(note.get("after"), int)
    return note if fits else None
