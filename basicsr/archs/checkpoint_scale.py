"""Weights of another scale than the network's, recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import build_network

SCALES = (1, 2, 3, 4, 8)


def scale_of_weights(network: Mapping[str, Any], state: Mapping[str, Tensor]) -> int | None:
    """The ``upscale`` with which a network would fit weights that do not fit it as it is; None if there is none.

    Args:
        network: The network's section of the options.
        state: The weights by the network's keys.
    """
    if "upscale" not in network:
        return None
    for scale in SCALES:
        try:
            with torch.device("meta"):
                net = build_network({**network, "upscale": scale})
        except Exception:  # whatever a constructor raises: it cannot have this scale
            continue
        shapes = {name: value.shape for name, value in net.named_parameters()}
        found = {name: value.shape for name, value in state.items() if name in shapes}
        extra = {name.rpartition(".")[0] for name in state} - {name.rpartition(".")[0] for name in net.state_dict()}
        if found == shapes and not extra and scale != network["upscale"]:
            return scale
    return None
