"""Networks: one published architecture per ``*_arch.py``, with its state-dict keys exactly as published.

A file is imported on first use of its network, so that a missing optional dependency affects that network only.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

from torch import nn

from basicsr.utils.registry import ARCH_REGISTRY

__all__ = ["build_network"]


def build_network(opt: dict[str, Any]) -> nn.Module:
    """Build a network from its section of an option file.

    Args:
        opt: ``type``, the registered name, and the constructor's arguments. It is left unchanged.

    Raises:
        KeyError: If no network of that name is registered.
        ValueError: If ``type`` is absent, or an argument is missing, unknown or refused by the network.
    """
    arguments = deepcopy(dict(opt))
    name = arguments.pop("type", None)
    if name is None:
        raise ValueError("A network section needs the key `type`, the name of a registered network, such as `EDSR`.")
    network = ARCH_REGISTRY.get(name)
    try:
        return network(**arguments)
    except TypeError as error:
        raise ValueError(
            f"Network '{name}' cannot be built from its options: {error}. "
            f"Its signature is {name}{inspect.signature(network)}."
        ) from error
