"""Restoration losses, functions of prediction and target; each is imported on first use."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from basicsr.utils.lazy import lazy_members
from basicsr.utils.registry import LOSS_REGISTRY

_names, __getattr__, __dir__ = lazy_members(
    __name__,
    {
        "basic_loss": [
            "CharbonnierLoss",
            "L1Loss",
            "MSELoss",
            "PSNRLoss",
            "WeightedTVLoss",
            "charbonnier_loss",
            "l1_loss",
            "mse_loss",
        ],
        "loss_util": [
            "get_local_weights",
            "get_refined_artifact_map",
            "reduce_loss",
            "weight_reduce_loss",
            "weighted_loss",
        ],
        "perceptual_loss": ["PerceptualLoss"],
    },
)

__all__ = [*_names, "build_loss"]


def build_loss(opt: Mapping[str, Any]) -> nn.Module:
    """Build a loss as an option file describes it.

    Args:
        opt: ``type``, the registered name, and the constructor's arguments. Not modified.

    Raises:
        ValueError: If there is no ``type``.
        KeyError: If no such loss is registered.
    """
    if "type" not in opt:
        raise ValueError(f"a loss needs the key 'type', as in {{type: L1Loss}}; these are given: {dict(opt)}")
    arguments = {key: copy.deepcopy(value) for key, value in opt.items() if key != "type"}
    loss = LOSS_REGISTRY.get(opt["type"])(**arguments)
    logging.getLogger("basicsr").info("Loss [%s] is created.", opt["type"])
    return loss
