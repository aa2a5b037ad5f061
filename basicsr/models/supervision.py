"""The supervised losses that the options name: ``pixel_opt``, ``perceptual_opt``, and any other ``<name>_opt``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from basicsr.distill.context import KDContext
from basicsr.distill.encoders import BatchImage, FrozenEncoder, PassOutput
from basicsr.distill.networks import Networks
from basicsr.losses import build_loss
from basicsr.losses.loss_util import check_shapes
from basicsr.losses.perceptual_loss import PerceptualLoss
from basicsr.utils.labelled import labelled
from basicsr.utils.options.sections import SupervisedLossOptions
from basicsr.utils.registry import LOSS_REGISTRY

LABELS = {"pixel": "pix", "perceptual": "percep"}
"""What BasicSR's log calls the losses of its sections; another section ``<name>_opt`` is called ``<name>``."""


class SupervisedLosses:
    """The supervised losses of a run.

    Args:
        losses: The losses.
    """

    def __init__(self, losses: Iterable[SupervisedLoss] = ()) -> None:
        self._losses = list(losses)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The losses by their label in the log."""
        return {loss.label: loss.loss for loss in self._losses}

    @property
    def names(self) -> list[str]:
        """The names that they may have in the log."""
        return [f"l_{label}" for label in self.modules] + (["l_style"] if "percep" in self.modules else [])

    @property
    def starts(self) -> list[int]:
        """The first iteration of each."""
        return [loss.start for loss in self._losses]

    def replace(self, label: str, module: nn.Module | None) -> None:
        """Replace the loss with this label by a plug-in's own, if it has one."""
        if module is not None and self.modules.get(label) is not module:
            others = [loss for loss in self._losses if loss.label != label]
            self._losses = [*others, SupervisedLoss(module, label)]

    def prepare(self, ctx: KDContext) -> None:
        """Request the encodings that they need."""
        for loss in self._active(ctx):
            loss.prepare(ctx)

    def __call__(self, ctx: KDContext) -> dict[str, Tensor]:
        """The weighted losses that are active, by their names in the log.

        Raises:
            ValueError: If there are any, and the data have no ground truth.
        """
        active = self._active(ctx)
        if active and ctx.gt is None:
            raise ValueError(
                "train.pixel_opt, perceptual_opt and other supervised losses compare with a ground truth, but "
                "datasets.train gives none; use a paired dataset, or remove these losses"
            )
        losses: dict[str, Tensor] = {}
        for loss in active:
            losses |= loss(ctx)
        return losses

    def _active(self, ctx: KDContext) -> list[SupervisedLoss]:
        return [loss for loss in self._losses if loss.active(ctx.iteration)]


class SupervisedLoss:
    """A loss between the student's output and the ground truth, and when it is active.

    Args:
        loss: Called with output and ground truth; gives a scalar, several by name, or BasicSR's (perceptual, style).
        label: Its name in the log: ``l_<label>``.
        start: The first iteration at which it is active.
        end: The last one; None for no end.
        encoder: What encodes the images of a perceptual loss that shares an encoder with distillation terms.
    """

    def __init__(
        self,
        loss: nn.Module,
        label: str,
        start: int = 1,
        end: int | None = None,
        encoder: FrozenEncoder | None = None,
    ) -> None:
        self.loss = loss
        self.label = label
        self.start = start
        self.end = end
        self._encoder = encoder

    def active(self, iteration: int) -> bool:
        """Whether it is minimised at an iteration."""
        return iteration >= self.start and (self.end is None or iteration <= self.end)

    def prepare(self, ctx: KDContext) -> None:
        """Request the encodings that it needs."""
        if self._encoder is not None:
            ctx.want_encoding(self._encoder, PassOutput("g"), BatchImage("gt"))

    def __call__(self, ctx: KDContext) -> dict[str, Tensor]:
        """The weighted loss by its name in the log, of the rows that have a ground truth."""
        output = ctx.batch.select(ctx.output, "gt")
        if self._encoder is None:
            value = self.loss(output, ctx.gt)
        else:
            check_shapes(output, ctx.gt)
            own = ctx.encoding(self._encoder, PassOutput("g"))[ctx.batch.rows_of("gt")]
            value = self.loss.compare(own.features, ctx.encoding(self._encoder, BatchImage("gt")).features)
        if isinstance(value, Mapping):
            return {f"l_{self.label}_{name}": part for name, part in value.items()}
        if not isinstance(value, tuple):
            return {f"l_{self.label}": value}
        # BasicSR's perceptual losses give two values, of which one may be None.
        style = "style" if self.label == "percep" else f"{self.label}_style"
        named = {f"l_{self.label}": value[0], f"l_{style}": value[1]}
        return {name: part for name, part in named.items() if part is not None}


def _build(section: str, options: Mapping[str, Any], networks: Networks, device: torch.device) -> SupervisedLoss:
    """The loss that a section of ``train`` describes.

    Args:
        section: The section's name without ``_opt``.
        options: The loss, ``start`` and ``end``.
        networks: Where a perceptual loss finds the encoder that it shares.
        device: Where the networks are.

    Raises:
        ValueError: If the encoder does not fit.
    """
    times = SupervisedLossOptions.of(options)
    options = {key: value for key, value in options.items() if key not in ("start", "end")}
    with labelled(f"train.{section}_opt"):
        loss = build_loss(options).to(device)
    encoder = None
    if isinstance(loss, PerceptualLoss) and loss.encoder is not None:
        with labelled(f"train.{section}_opt"):
            encoder = networks.encoder(loss.encoder, layers=loss.layer_weights)
    return SupervisedLoss(loss, LABELS.get(section, section), times.start, times.end, encoder)


def build_supervised_losses(
    train: Mapping[str, Any], of_recipe: set[str], networks: Networks, device: torch.device
) -> SupervisedLosses:
    """The losses that ``train`` names: ``pixel_opt``, ``perceptual_opt``, and each ``<name>_opt`` of a registered loss.

    Args:
        train: The training options.
        of_recipe: Sections that the recipe builds itself.
        networks: Where a perceptual loss finds the encoder that it shares.
        device: Where the networks are.
    """
    sections = {
        str(key).removesuffix("_opt"): options
        for key, options in train.items()
        if str(key).endswith("_opt") and isinstance(options, Mapping) and key not in of_recipe
    }
    return SupervisedLosses(
        _build(name, options, networks, device)
        for name, options in sections.items()
        if name in LABELS or options.get("type") in LOSS_REGISTRY
    )
