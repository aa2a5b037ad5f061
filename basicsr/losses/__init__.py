"""Restoration losses, functions of prediction and target; each is loaded from its module when first used."""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from basicsr.utils.registry import LOSS_REGISTRY

_HOME = {
    "CharbonnierLoss": "basic_loss",
    "L1Loss": "basic_loss",
    "MSELoss": "basic_loss",
    "PSNRLoss": "basic_loss",
    "PerceptualLoss": "perceptual_loss",
    "WeightedTVLoss": "basic_loss",
    "charbonnier_loss": "basic_loss",
    "l1_loss": "basic_loss",
    "mse_loss": "basic_loss",
    "reduce_loss": "loss_util",
    "weight_reduce_loss": "loss_util",
    "weighted_loss": "loss_util",
}

__all__ = sorted([*_HOME, "build_loss"])


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


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
