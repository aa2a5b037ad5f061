"""Loads weights into networks from files of PyTorch and safetensors, without running pickled code."""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .download_util import local_path
from .files import not_a_file

# What PyTorch says of containers that it does not fill: (what it wanted), and the class that it found.
_CONTAINER = re.compile(r"Can only (SETITEMS? for dict|append to list|extend list)s?\b.*but got <class '(\S+)'>")
_NOT_PLAIN = ("Can only ", "Trying to call reduce")
PREFIXES = ("module.", "_orig_mod.")
STATE_KEYS = ("params_ema", "params", "state_dict")
"""What published files call their state dicts, in the order in which they are looked for."""
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
        found = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        reason = found[1] if found else str(error)
        if reason.startswith(_NOT_PLAIN):
            raise ValueError(
                f"{path} is refused: it holds pickled objects other than tensors and plain values ({reason}). Save its "
                f"state_dict() alone and use that file."
            ) from error
        raise ValueError(f"{path} is damaged or not a checkpoint: {reason}") from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file; all mean the same here
        raise ValueError(f"{path} is damaged or not a checkpoint: {type(error).__name__}: {error}") from error


def load_with_stand_ins(path: str | os.PathLike) -> Any:
    """Read a PyTorch file that may hold objects of other libraries beside the tensors, as Lightning's do.

    Each such object is replaced by an empty object of a stand-in class, so that no pickled code runs and the library
    need not be installed. Objects of a subclass of ``dict`` or ``list``, such as Lightning's ``AttributeDict``, become
    plain mappings and lists. Which classes these are is learnt from what PyTorch refuses, one at a time.
    """
    stand_ins: dict[str, type] = {}
    containers: set[str] = set()
    while True:
        try:
            with torch.serialization.safe_globals(list(stand_ins.values())):
                return _read(local_path(path))
        except ValueError as error:
            if not isinstance(error.__cause__, pickle.UnpicklingError):
                raise
            reason = str(error.__cause__)
            foreign, container = re.search(r"GLOBAL (\S+)", reason), _CONTAINER.search(reason)
            if foreign and foreign[1] not in stand_ins:
                stand_ins[foreign[1]] = _stand_in(foreign[1])
            elif container and container[2] in stand_ins and container[2] not in containers:
                kind = list if "list" in container[1] else OrderedDict
                containers.add(container[2])
                stand_ins[container[2]] = _stand_in(container[2], kind)
            else:
                raise


def _stand_in(full_name: str, kind: type | None = None) -> type:
    """An empty class of that name, whose constructor accepts anything.

    Args:
        full_name: Module and name.
        kind: What the constructor makes instead of an object of the class: an empty list, or an empty mapping. PyTorch
            fills and restores those, and no subclasses.
    """
    module, _, name = full_name.rpartition(".")

    def take(self: Any, *args: Any, **kwargs: Any) -> None:
        """Accept the arguments of the real class, its state, or an item."""

    def make(cls: type, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls) if kind is None else kind()

    methods = {"__new__": make, "__init__": take, "__setstate__": take, "__setitem__": take}
    return type(name, (), {"__module__": module, **methods})


def extract_state_dict(checkpoint: Any, param_key: str | None = "params", source: str = "the checkpoint") -> dict:
    """The state dict inside a checkpoint, its keys as they are; see :func:`find_state_dict`."""
    return find_state_dict(checkpoint, param_key, source)[0]


def find_state_dict(
    checkpoint: Any, param_key: str | None = "params", source: str = "the checkpoint"
) -> tuple[dict, str | None]:
    """The state dict inside a checkpoint, its keys as they are, and the key that it was found under.

    Args:
        checkpoint: What a file held: a state dict, or a mapping that holds one under ``params``, ``params_ema`` or
            ``state_dict``.
        param_key: The key to take. If it is one of these and absent, the others are tried in the order ``params_ema``,
            ``params``, ``state_dict``; None means the same order from the start.
        source: Named in errors.

    Returns:
        The state dict, and its key; None where the checkpoint itself is one.

    Raises:
        ValueError: If there is no state dict in it, or none under a ``param_key`` of another name.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{source} holds no state dict but a {type(checkpoint).__name__}")
    named = [key for key, value in checkpoint.items() if isinstance(value, Mapping)]
    if param_key is not None and param_key not in (*named, *STATE_KEYS):
        found = f"those of {', '.join(map(str, named))}" if named else "a state dict without a name"
        raise ValueError(f"param_key: {source} holds no weights '{param_key}', but {found}")
    taken = next((key for key in (param_key, *STATE_KEYS) if key is not None and key in named), None)
    state = checkpoint if taken is None else checkpoint[taken]
    if state and all(isinstance(value, Tensor) for value in state.values()):
        return dict(state), taken
    found = ", ".join(map(str, list(state)[:8])) or "nothing"
    raise ValueError(f"{source} holds no state dict; it has the keys {found}")


def strip_prefixes(key: str) -> str:
    """Remove the prefixes that DataParallel, DDP and torch.compile put before (or inside) a key."""
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key.replace("._orig_mod.", ".")


def load_weights(
    net: nn.Module, path: str | os.PathLike, strict: bool = True, param_key: str | None = "params"
) -> list[str]:
    """Load a file's weights into a network. The log names the key that was taken.

    Args:
        net: The network, without any wrapper.
        path: The file, or its URL.
        strict: Whether keys and shapes must all agree. Otherwise what agrees is loaded.
        param_key: See :func:`find_state_dict`. That another one was taken is a warning.

    Returns:
        Messages about differences; empty if everything agreed.

    Raises:
        ValueError: If ``strict`` and something differs: lists missing, unexpected and wrong-shape keys.
    """
    checkpoint = load_file(path)
    state, taken = find_state_dict(checkpoint, param_key, str(path))
    logger = logging.getLogger("basicsr")
    logger.info(f"Loading {type(net).__name__} from {path} [{'the whole file' if taken is None else taken}].")
    if taken is not None and param_key not in (None, taken):
        logger.warning(f"{path} has no '{param_key}', but {', '.join(map(str, checkpoint))}: '{taken}' is taken.")
    state = _without_prefixes(net, state)
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
    return _without_prefixes(net, extract_state_dict(load_file(path), param_key, str(path)))


def _without_prefixes(net: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    own = net.state_dict().keys()
    stripped = {strip_prefixes(key): value for key, value in state.items()}
    # Fewer fit where a part of the network is named "module".
    return stripped if len(own & stripped.keys()) >= len(own & state.keys()) else state


def _some(items: list[str], limit: int = 12) -> str:
    return ", ".join(items[:limit]) + (f", … ({len(items) - limit} more)" if len(items) > limit else "")
