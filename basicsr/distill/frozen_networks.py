"""The frozen networks of a run, each built on first use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.engine.compute.distributed import broadcast_module
from basicsr.engine.misfit import explaining_misfit
from basicsr.engine.rng import preserved_rng
from basicsr.utils.labelled import labelled
from basicsr.utils.logger import get_root_logger
from basicsr.utils.weights import load_weights

from .frozen import FrozenNetwork

RANDOM = "random"
"""In place of a file: the weights are random, and are meant to be."""


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
        self._undeclared: list[str] = []
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

    def require_weights(self) -> None:
        """Refuse networks whose weights are random, unless the options say that they are to be.

        Raises:
            ValueError: If there is one.
        """
        for name in self._undeclared:
            key = f"pretrain_network_{name}"
            raise ValueError(
                f"path.{key} is not set, so network_{name} would have random weights and nothing to teach; name its "
                f"file, or set path.{key} to {RANDOM} if that is what the experiment is about"
            )

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
        with labelled(key):
            net = build_network(options).to(self._device)
        weights = str(path.get(f"pretrain_{key}") or "")
        if weights and weights != RANDOM:
            param_key = path.get(f"param_key_{name}")
            with explaining_misfit(self._opt, key, net, param_key):
                sentences = load_weights(net, weights, path.get(f"strict_load_{name}", True), param_key)
            for sentence in sentences:
                get_root_logger().warning(f"{weights}: keys {sentence}")
        elif not _draws_its_weights(net, options):
            weights = "its own"
        else:
            get_root_logger().warning(f"{key} has RANDOM weights: path.pretrain_{key} is {weights or 'not set'}.")
            if not weights and options.get("weights") != RANDOM:
                self._undeclared.append(name)
            weights = "RANDOM"
            broadcast_module(net)
        runtime = (self._opt.get("runtime") or {}).get(name) or {}
        return FrozenNetwork(net, name, **runtime, weights=weights)


def _draws_its_weights(net: nn.Module, options: Mapping[str, Any]) -> bool:
    """Whether the weights of a network that was just built are random: another one, built alike, has others. Those of a
    network that loads a file of its own, such as torchvision's VGG, are not, nor those that are constant."""
    with preserved_rng():
        torch.manual_seed(0x5EED)
        other = build_network(options).state_dict()
    return any(not torch.equal(value.cpu(), other[name].cpu()) for name, value in net.state_dict().items())
