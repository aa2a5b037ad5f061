"""Finding the training state to continue from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from basicsr.utils.logger import get_root_logger

from .checkpoint import is_whole, load_file


def find_resume_state(opt: dict) -> dict[str, Any] | None:
    """The training state that ``--auto_resume`` or ``path.resume_state`` asks for; None for a new run.

    ``--auto_resume`` takes the newest state of the run that is whole, with the networks saved beside it, and warns of
    each newer one that is not.

    Raises:
        FileNotFoundError, ValueError: If ``path.resume_state`` names a file that is absent or damaged.
    """
    path = opt["path"]
    if opt.get("auto_resume"):
        folder = Path(path["experiments_root"]) / "training_states"
        states = [file for file in folder.glob("*.state") if file.stem.isdigit()]
        for file in sorted(states, key=lambda f: int(f.stem), reverse=True):
            damage = _damage(file, Path(path["models"]))
            if damage is None:
                path["resume_state"] = str(file)
                return load_file(file)
            get_root_logger().warning(f"{file.name} is passed over: {damage}. Looking for an earlier state.")
        path.pop("resume_state", None)
        return None
    if path.get("resume_state"):
        return load_file(path["resume_state"])
    return None


def _damage(file: Path, models: Path) -> str | None:
    """What is wrong with a training state or its networks; None if nothing is."""
    if not is_whole(file):
        return "the file is incomplete or damaged"
    for name in load_file(file).get("networks", []):
        if not is_whole(models / name):
            return f"its network {name} is absent, incomplete or damaged"
    return None
