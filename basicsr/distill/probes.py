"""Trial passes, which give the shapes of features before the training starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from basicsr.engine.batch import Batch
from basicsr.engine.rng import preserved_rng
from basicsr.utils.options.sections.datasets import channels_of
from basicsr.utils.options.streams import training_sets

from .context import KDContext
from .passes import INPUT, Pass, PassNetwork


class Probes:
    """One pass of each network over two random training patches, run on first use.

    Each network runs in the mode that it has in training. Its buffers and the random generators do not change. A
    feature that the network later overwrites in place is detected here, and copied from then on.

    Args:
        opt: The options of the run.
        find: The network of a name.
        device: Where the networks are.
    """

    def __init__(self, opt: Mapping[str, Any], find: Callable[[str], PassNetwork], device: torch.device) -> None:
        self._opt = opt
        self._find = find
        self._device = device
        self._done: dict[str, Pass] = {}

    @property
    def _training_set(self) -> Mapping[str, Any]:
        found = training_sets(self._opt.get("datasets"))
        if not found:
            raise ValueError(
                "datasets: there is no training set, whose patch size the trial passes of distillation terms need"
            )
        return next(iter(found.values()))

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a training patch, as the student sees it."""
        scale = self._opt.get("scale", 1)
        side = (self._training_set.get("gt_size") or 64 * scale) // scale
        return side, side

    def of(self, network: str) -> Pass:
        """A network's pass.

        Raises:
            ValueError: If there is no such network, or it cannot run on a training patch.
        """
        if network not in self._done:
            self._done[network] = self.at(network, scale=1)
        return self._done[network]

    @torch.no_grad()
    def at(self, network: str, scale: int) -> Pass:
        """A network's pass over patches ``scale`` times as high and wide as in training. It is not cached."""
        source = self._find(network)
        if source.asks_for_passes:
            ctx = _ProbeContext(0, self._batch(scale), self._find)
            ctx.probe = self.of
            with _preserved_state(self._find("g").net):
                return KDContext.run(ctx, network)
        patch = self._batch(scale)[INPUT]
        run = source.net if network == "g" else source.run  # without DDP: nothing is synchronised
        with _preserved_state(source.net), source.taps.recording(watch=True) as features:
            try:
                output = run(patch)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"{source.label} cannot run on a patch {tuple(patch.shape)}: {error}") from error
        return Pass(output, features)

    def _batch(self, scale: int) -> Batch:
        """Two fixed random patches; two, since batch statistics need more than one value."""
        channels = channels_of(self._training_set)
        height, width = self.patch_size
        generator = torch.Generator().manual_seed(0)
        patches = torch.rand(2, channels, scale * height, scale * width, generator=generator)
        return Batch({"train": {INPUT: patches.to(self._device)}})

    def clear(self, network: str | None = None) -> None:
        """Free a network's pass; all of them if None."""
        for name in [network] if network else list(self._done):
            del self._done[name]


def per_image_shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape for one of the two patches of a probe."""
    return (tensor.shape[0] // 2, *tensor.shape[1:])


class _ProbeContext(KDContext):
    """The context of a trial pass of a term that is a network: other networks' passes over lq are their probes."""

    probe: Callable[[str], Pass]

    def run(self, network: str, key: str = INPUT) -> Pass:
        return self.probe(network) if key == INPUT else super().run(network, key)


@contextmanager
def _preserved_state(net: nn.Module) -> Iterator[None]:
    """Context manager that restores a network's buffers, such as batch statistics, and the random generators."""
    statistics = [(buffer, buffer.clone()) for buffer in net.buffers()]
    with preserved_rng():
        try:
            yield
        finally:
            for buffer, value in statistics:
                buffer.copy_(value)
