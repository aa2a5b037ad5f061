"""Checkpoints: whether a file is whole, and state dicts as they are written to files."""

from __future__ import annotations

import os
import zipfile

from torch import Tensor, nn

from basicsr.utils.files import not_a_file
from basicsr.utils.weights import load_file


def find_damage(path: str | os.PathLike) -> str | None:
    """What is wrong with a file that :func:`atomic_save` wrote, as the end of an error message; None if nothing is.

    The whole file is read, to compare every record with its checksum, and then loaded: the two readers do not look
    at the same parts of the file.
    """
    kind = not_a_file(path)
    if kind is not None:
        return kind
    try:
        with zipfile.ZipFile(path) as archive:
            is_whole = archive.testzip() is None
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except Exception:  # zipfile raises many kinds for a damaged file; all mean the same here
        is_whole = False
    if not is_whole:
        return "is incomplete or damaged"
    try:
        load_file(path)
    except ValueError as error:
        return f"cannot be loaded: {error}"
    return None


def cpu_state_dict(net: nn.Module) -> dict[str, Tensor]:
    """A network's state dict on the CPU, as it is written to files.

    Args:
        net: The network, without DDP or DataParallel around it; torch.compile's prefix is removed.
    """
    state = net.state_dict()
    return {
        key.replace("_orig_mod.", ""): value.detach().cpu() if isinstance(value, Tensor) else value
        for key, value in state.items()
    }
