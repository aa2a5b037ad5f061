"""The terms of a run: built from the options, and set up on its networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from basicsr.engine.compute.distributed import broadcast_module
from basicsr.utils.options.annotations import strings_in

from . import build_term
from .networks import Networks
from .own_training import OwnTraining
from .term_network import TermNetwork, is_network
from .term_parts import errors_naming, groups_of, optimizers_of, own_attributes

Sections = Mapping[str, Mapping[str, Any]]


def build_terms(sections: Sections, device: torch.device) -> nn.ModuleDict:
    """The terms that the sections of ``train.kd_opt`` describe, by name.

    Raises:
        ValueError: If a name cannot be that of a module, or the arguments of a term do not fit.
    """
    terms = nn.ModuleDict()
    for name, options in sections.items():
        if hasattr(terms, name):
            raise ValueError(f"train.kd_opt.{name}: this name is taken by PyTorch; choose another for the term")
        terms[name] = build_term(name, options).to(device)
    return terms


def require_divisible_batches(terms: nn.ModuleDict, parts: int) -> None:
    """Refuse to divide batches whose samples a term compares with each other.

    Args:
        terms: The terms by name.
        parts: ``train.accumulate``.

    Raises:
        ValueError: If a term needs the whole batch and there are several parts.
    """
    for name, term in terms.items():
        if term.needs_whole_batch and parts > 1:
            raise ValueError(
                f"train.kd_opt.{name}: {type(term).__name__} compares the samples of a batch with each other, and "
                f"train.accumulate divides the batch into {parts} parts; set train.accumulate to 1"
            )


class TermSetup:
    """Sets each term up once: its networks, adapters and optimisers.

    A term that is a network is set up before the terms that ask for it.

    Args:
        terms: The terms by name.
        networks: What the terms see of the run.
        own: Takes the terms' own optimisers.
    """

    def __init__(self, terms: nn.ModuleDict, networks: Networks, own: OwnTraining) -> None:
        self._terms = terms
        self._networks = networks
        self._own = own
        self._done: set[str] = set()

    def run(self, sections: Sections) -> None:
        """Build the frozen networks that the terms name, tap what they read, and set all of them up.

        Args:
            sections: The options of each term.

        Raises:
            ValueError: If a term cannot be used; the message names it and says why.
        """
        terms, networks = self._terms, self._networks
        as_networks = {name: TermNetwork(term) for name, term in terms.items() if is_network(term)}
        others = {name: type(term).__name__ for name, term in terms.items() if name not in as_networks}
        networks.add_terms(as_networks, others, self._set_up)
        # A term uses the networks that its options name.
        named = [strings_in(sections[name]) | strings_in(own_attributes(term)) for name, term in terms.items()]
        networks.frozen.build(set().union(*named))
        for name, term in terms.items():
            with errors_naming(name):
                for network, pattern in term.taps():
                    networks[network].taps.add(pattern)
        for name in terms:
            self._set_up(name)
        for network in {network for term in terms.values() for network, _ in term.taps()}:
            networks.output_shape(network)  # also notices features that are overwritten in place

    def _set_up(self, name: str) -> None:
        if name in self._done:
            return
        self._done.add(name)
        term = self._terms[name]
        with errors_naming(name):
            term.setup(self._networks)
            term.to(self._networks.device)
            optimizers = optimizers_of(term, self._networks)
            groups_of(term)
        broadcast_module(term)
        if optimizers:
            with errors_naming(name):
                self._own.add(term, optimizers)
