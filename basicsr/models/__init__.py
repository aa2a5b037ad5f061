"""Recipes: what one training iteration does. ``build_model(opt)`` makes the one that ``model_type`` names."""

from __future__ import annotations

from typing import Any

from basicsr.utils.registry import MODEL_REGISTRY

__all__ = ["build_model"]


def build_model(opt: dict) -> Any:
    """The recipe that ``opt['model_type']`` names, built with all options.

    Raises:
        KeyError: If no recipe of that name is registered.
    """
    from basicsr.utils.logger import get_root_logger

    model = MODEL_REGISTRY.get(opt["model_type"])(opt)
    get_root_logger().info(f"Model [{type(model).__name__}] is created.")
    return model
