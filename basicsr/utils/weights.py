"""Loads weights into networks from files of PyTorch and safetensors, without running pickled code."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .download_util import local_path
from .file_kind import not_a_file

PREFIXES = ("module.", "_orig_mod.")
SIZE_MISMATCH = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\((.*?)\) from checkpoint, "
    r"the shape in current model is torch\.Size\((.*?)\)\."
)


def load_file(path: str | os.PathLike) -> Any:
    """Read a ``.pth``, ``.pt``, ``.ckpt``, ``.state`` or ``.safetensors`` file, a path or an http(s) URL, to the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds pickled objects other than tensors and plain values.
    """
    path = local_path(path)
    return load_with_stand_ins(path) if path.suffix == ".ckpt" else _read(path)


def _read(path: Path) -> Any:
    """:func:`load_file` for a local file."""
    kind = not_a_file(path)
    if kind is not None:
        raise FileNotFoundError(f"the checkpoint {path} {'does not exist' if kind == 'is absent' else kind}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            return load_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            raise ValueError(
                f"{path} is refused: it holds the pickled object {foreign[1]}, and only tensors and plain values are "
                f"loaded, since others could run code. Save its state_dict() alone and use that file."
            ) from error
        reason = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        raise ValueError(f"{path} is damaged or not a checkpoint: {reason[1] if reason else error}") from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file; all mean the same here
        raise ValueError(f"{path} is damaged or not a checkpoint: {type(error).__name__}: {error}") from error


def load_with_stand_ins(path: str | os.PathLike) -> Any:
    """Read a PyTorch file that may hold objects of other libraries beside the tensors, as Lightning's do.

    Each such object is replaced by an empty object of a stand-in class, so that no pickled code runs and the library
    need not be installed.
    """
    stand_ins: dict[str, type] = {}
    while True:
        try:
            with torch.serialization.safe_globals(list(stand_ins.values())):
                return _read(local_path(path))
        except ValueError as error:
            foreign = re.search(r"GLOBAL (\S+)", str(error.__cause__))
            if not isinstance(error.__cause__, pickle.UnpicklingError) or not foreign or foreign[1] in stand_ins:
                raise
            stand_ins[foreign[1]] = _stand_in(foreign[1])


def _stand_in(full_name: str) -> type:
    """An empty class of that name, whose constructor accepts anything."""
    module, _, name = full_name.rpartition(".")

    def take(self: Any, *args: Any, **kwargs: Any) -> None:
        """Accept the arguments of the real class."""

    return type(name, (), {"__module__": module, "__init__": take, "__setstate__": take})


def extract_state_dict(checkpoint: Any, param_key: str | None = "params", source: str = "the checkpoint") -> dict:
    """The state dict inside a checkpoint, its keys as they are.

    Args:
        checkpoint: What a file held: a state dict, or a mapping that holds one under ``params``, ``params_ema`` or
            ``state_dict``.
        param_key: The key to take. If it is absent, the others are tried in the order ``params_ema``, ``params``,
            ``state_dict``; None means the same order from the start.
        source: Named in errors.

    Raises:
        ValueError: If there is no state dict in it.
    """
    if isinstance(checkpoint, Mapping):
        for key in (param_key, "params_ema", "params", "state_dict"):
            if key is not None and isinstance(checkpoint.get(key), Mapping):
                checkpoint = checkpoint[key]
                break
        if checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()):
            return dict(checkpoint)
        found = ", ".join(map(str, list(checkpoint)[:8])) or "nothing"
        raise ValueError(f"{source} holds no state dict; it has the keys {found}")
    raise ValueError(f"{source} holds no state dict but a {type(checkpoint).__name__}")


def strip_prefixes(key: str) -> str:
    """Remove the prefixes that DataParallel, DDP and torch.compile put before (or inside) a key."""
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key.replace("._orig_mod.", ".")


def load_weights(
    net: nn.Module, path: str | os.PathLike, strict: bool = True, param_key: str | None = "params"
) -> list[str]:
    """Load a file's weights into a network.

    Args:
        net: The network, without any wrapper.
        path: The file, or its URL.
        strict: Whether keys and shapes must all agree. Otherwise what agrees is loaded.
        param_key: See :func:`extract_state_dict`.

    Returns:
        Messages about differences; empty if everything agreed.

    Raises:
        ValueError: If ``strict`` and something differs: lists missing, unexpected and wrong-shape keys.
    """
    state = read_weights(net, path, param_key)
    own = net.state_dict().keys()
    wrong: dict[str, str] = {}
    try:
        # The network decides what fits: it may ignore keys that can be derived, such as attention masks.
        result = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        found = SIZE_MISMATCH.findall(str(error))
        if not found:
            raise ValueError(f"{path} does not fit {type(net).__name__}: {error}") from error
        wrong = {name: f"{name} {saved} in the file, {own} in the network" for name, saved, own in found}
        result = net.load_state_dict({k: v for k, v in state.items() if k not in wrong}, strict=False)
    missing = [key for key in result.missing_keys if key not in wrong]
    if own and not (own & state.keys()) - wrong.keys():
        raise ValueError(f"{path} does not fit {type(net).__name__}: none of its keys does ({_some(list(state))})")
    differences = [
        f"{len(keys)} {what}: {_some(keys)}"
        for what, keys in (
            ("missing in the file", missing),
            ("unexpected in the file", result.unexpected_keys),
            ("of wrong shape", list(wrong.values())),
        )
        if keys
    ]
    if strict and differences:
        raise ValueError(
            f"{path} does not fit {type(net).__name__}. Keys {'; '.join(differences)}. Check the network's options "
            f"against the checkpoint's, or set strict_load to false to load what agrees."
        )
    return differences


def read_weights(net: nn.Module, path: str | os.PathLike, param_key: str | None = "params") -> dict[str, Tensor]:
    """A file's weights by a network's keys, whether or not they fit it; arguments as for :func:`load_weights`."""
    state = extract_state_dict(load_file(path), param_key, str(path))
    own = net.state_dict().keys()
    stripped = {strip_prefixes(key): value for key, value in state.items()}
    # Fewer fit where a part of the network is named "module".
    return stripped if len(own & stripped.keys()) >= len(own & state.keys()) else state


def _some(items: list[str], limit: int = 12) -> str:
    return ", ".join(items[:limit]) + (f", … ({len(items) - limit} more)" if len(items) > limit else "")
