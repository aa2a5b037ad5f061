"""The frozen networks of a run, each built on first use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from basicsr.archs import build_network
from basicsr.engine.compute.distributed import broadcast_module
from basicsr.utils.logger import get_root_logger
from basicsr.utils.weights import load_weights

from .frozen import FrozenNetwork


class FrozenNetworks:
    """Every ``network_<x>`` that the recipe does not train, by its suffix.

    Args:
        opt: The options of the run.
        trained: The suffixes of the networks that the recipe trains.
        device: Where the networks are to be.

    Attributes:
        built: Those that were asked for.

    Raises:
        ValueError: If one is described by anything but a section.
    """

    def __init__(self, opt: Mapping[str, Any], trained: Iterable[str], device: torch.device) -> None:
        self._opt = opt
        self._device = device
        self._trained = [name for name in trained if opt.get(f"network_{name}")]
        self._options = {
            key.removeprefix("network_"): options
            for key, options in opt.items()
            if key.startswith("network_") and options and key.removeprefix("network_") not in trained
        }
        self.built: dict[str, FrozenNetwork] = {}
        for name, options in self._options.items():
            if not isinstance(options, dict):
                raise ValueError(
                    f"network_{name}: must be a section with a type, not {options!r} (DCKD's own files, with "
                    f"network_his: true, have model_type: DCKDModel; the term DCR makes its history network itself)"
                )

    def __contains__(self, name: str) -> bool:
        return name in self._options

    def __getitem__(self, name: str) -> FrozenNetwork:
        """``network_<name>``, with its weights.

        Raises:
            ValueError: If the options do not describe it.
        """
        if name not in self.built:
            self.built[name] = self._build(name)
        return self.built[name]

    @property
    def unused(self) -> list[str]:
        """Those that nobody has asked for."""
        return [name for name in self._options if name not in self.built]

    def build(self, names: Collection[str]) -> None:
        """Build those among some names, in the order of the options."""
        for name in self._options:
            if name in names:
                self[name]

    def _build(self, name: str) -> FrozenNetwork:
        if name in self._trained:
            raise ValueError(f"network_{name} is trained by the recipe, and is not a network that terms may use")
        if name not in self._options:
            known = ", ".join(f"network_{key}" for key in self._options) or "none is defined"
            raise ValueError(
                f"network_{name} is not defined; frozen networks: {known}. Add network_{name}: {{type: …}}"
            )
        key, options, path = f"network_{name}", self._options[name], self._opt["path"]
        net = build_network(options).to(self._device)
        file = path.get(f"pretrain_{key}")
        if file:
            param_key = path.get(f"param_key_{name}")
            for message in load_weights(net, file, path.get(f"strict_load_{name}", True), param_key):
                get_root_logger().warning(f"{file}: keys {message}")
        else:
            get_root_logger().warning(f"{key} has RANDOM weights: path.pretrain_{key} is not set.")
            broadcast_module(net)
        return FrozenNetwork(net, name, **((self._opt.get("runtime") or {}).get(name) or {}))
