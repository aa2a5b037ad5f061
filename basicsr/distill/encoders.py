"""Frozen encoders, such as VQGAN's or VGG: an image goes in, named feature maps and maybe a latent come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from basicsr.archs.latent_encoder import LatentEncoder

from .frozen import FrozenNetwork
from .passes import INPUT

InputRange = Literal["[0,1]", "[-1,1]"]


class PassOutput(NamedTuple):
    """The output of a pass, as the source of an encoding.

    Attributes:
        network: As in ``ctx.run``: ``g``, ``t`` …
        key: The key of the pass.
    """

    network: str
    key: str = INPUT


class BatchImage(NamedTuple):
    """An image of the batch, as the source of an encoding.

    Attributes:
        key: Of the batch: ``gt``.
    """

    key: str


Source = PassOutput | BatchImage


@dataclass
class Encoding:
    """The encoding of a batch of images.

    Attributes:
        features: Layer name → feature maps ``(B, C_i, H_i, W_i)``, shallow to deep.
        latent: ``(B, D, h, w)`` before quantisation; None until it is computed.
    """

    features: dict[str, Tensor]
    latent: Tensor | None = None

    @property
    def levels(self) -> list[Tensor]:
        """The feature maps alone."""
        return list(self.features.values())

    def detached(self) -> Encoding:
        """The same without gradients."""
        return Encoding({name: feature.detach() for name, feature in self.features.items()})

    def __getitem__(self, rows: slice | Tensor) -> Encoding:
        """Some images of the batch."""
        if isinstance(rows, slice) and rows.indices(len(self.levels[0])) == (0, len(self.levels[0]), 1):
            return self
        return Encoding({name: feature[rows] for name, feature in self.features.items()})


@dataclass(frozen=True)
class FrozenEncoder:
    """A frozen network used as an encoder. Equal encoders share their encodings.

    Args:
        network: The network: one whose output is a dict of feature maps, such as VGGFeatureExtractor, or a
            :class:`~basicsr.archs.latent_encoder.LatentEncoder`, such as VQGAN, whose layers are called ``level1``,
            ``level2`` …
        input_range: What images in [0, 1] are mapped to first.
    """

    network: FrozenNetwork
    input_range: InputRange = "[0,1]"

    @property
    def codebook(self) -> Tensor | None:
        """The codebook ``(n_embed, D)``; None if the encoder has none, and so no latent."""
        return self.network.net.codebook if isinstance(self.network.net, LatentEncoder) else None

    def encode(self, image: Tensor) -> Encoding:
        """Feature maps of images ``(B, C, H, W)`` in [0, 1], with gradients to them unless the caller forbids them.

        Raises:
            TypeError: If the network is not an encoder.
        """
        if self.input_range == "[-1,1]":
            image = 2 * image - 1
        net = self.network.net
        with self.network.runtime.autocast(image.device):
            if isinstance(net, LatentEncoder):
                return Encoding({f"level{i}": level for i, level in enumerate(net.features(image), 1)})
            features = net(image)
            if not isinstance(features, dict):
                raise TypeError("it gives an image; an encoder gives a dict of feature maps, or is a LatentEncoder")
            return Encoding(dict(features))

    def latent(self, encoding: Encoding) -> Tensor:
        """The latent of an encoding, computed from its features and cached in it."""
        if encoding.latent is None:
            with self.network.runtime.autocast(encoding.levels[-1].device):
                encoding.latent = self.network.net.latent_from_features(encoding.levels)
        return encoding.latent


class Encodings:
    """The encodings of one iteration. Images of one size are encoded in one batch, those with gradients in another.

    Args:
        part: From a part of the step to the timer's context manager.
    """

    def __init__(self, part: Callable[[str], AbstractContextManager]) -> None:
        self._part = part
        self._wanted: dict[FrozenEncoder, dict[Source, None]] = {}
        self._done: dict[FrozenEncoder, dict[Source, Encoding]] = {}

    def want(self, encoder: FrozenEncoder, sources: Sequence[Source]) -> None:
        """Request encodings."""
        self._wanted.setdefault(encoder, {}).update(dict.fromkeys(sources))

    def get(self, encoder: FrozenEncoder, source: Source, image_of: Callable[[Source], Tensor]) -> Encoding:
        """The encoding of an image. Requested images of its size that have, or lack, gradients as it does come with it.

        Args:
            encoder: The encoder.
            source: The image.
            image_of: From a source to the image.
        """
        done = self._done.setdefault(encoder, {})
        if source not in done:
            first = image_of(source)
            images = {source: first}
            for other in self._wanted.get(encoder, {}):
                if other not in done and other != source:
                    image = image_of(other)
                    if image.requires_grad == first.requires_grad and image.shape[1:] == first.shape[1:]:
                        images[other] = image
            order = list(self._wanted.get(encoder, {source: None}))  # that of the requests, whichever is read first
            done.update(self._encode(encoder, dict(sorted(images.items(), key=lambda item: _position(item[0], order)))))
        return done[source]

    def latent(self, encoder: FrozenEncoder, source: Source, image_of: Callable[[Source], Tensor]) -> Tensor:
        """The latent of an image, computed from its features."""
        encoding = self.get(encoder, source, image_of)
        with self._part("encoder"), torch.set_grad_enabled(encoding.levels[-1].requires_grad):
            return encoder.latent(encoding)

    def _encode(self, encoder: FrozenEncoder, images: Mapping[Source, Tensor]) -> dict[Source, Encoding]:
        batches = list(images.values())
        joined = torch.cat(batches) if len(batches) > 1 else batches[0]
        with_gradient = joined.requires_grad
        chunks = (joined,) if with_gradient else encoder.network.runtime.chunks(joined)
        with self._part("encoder"), torch.set_grad_enabled(with_gradient):
            parts = [encoder.encode(chunk).features for chunk in chunks]
            # Copy only if there are several parts: these are the step's largest tensors.
            whole = {name: torch.cat([p[name] for p in parts]) if len(parts) > 1 else f for name, f in parts[0].items()}
        if len(batches) == 1:
            return {source: Encoding(whole) for source in images}
        cuts = {name: feature.split([len(batch) for batch in batches]) for name, feature in whole.items()}
        return {
            source: Encoding({name: pieces[index] for name, pieces in cuts.items()})
            for index, source in enumerate(images)
        }


def _position(source: Source, order: list[Source]) -> int:
    return order.index(source) if source in order else -1
