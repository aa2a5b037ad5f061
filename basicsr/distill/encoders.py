"""Frozen encoders, such as VQGAN's or VGG, seen alike: an image goes in, feature levels and maybe a latent come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from .frozen import FrozenNetwork

if TYPE_CHECKING:
    from basicsr.models.kd_model import KDModel

InputRange = Literal["[0,1]", "[-1,1]"]


@dataclass
class Encoding:
    """What an encoder makes of a batch of images.

    Attributes:
        levels: Feature maps ``(B, C_i, H_i, W_i)``, shallow to deep.
        latent: ``(B, D, h, w)`` before quantisation; None until it is asked for.
    """

    levels: list[Tensor]
    latent: Tensor | None = None

    def __getitem__(self, rows: slice) -> Encoding:
        """Some images of the batch."""
        return Encoding([level[rows] for level in self.levels])


def encode(network: FrozenNetwork, image: Tensor, input_range: InputRange) -> Encoding:
    """Feature levels of images, with gradients to the images unless the caller forbids them.

    Args:
        network: A frozen network with ``features(x)`` (VQGAN), or whose output is a dict of feature maps
            (VGGFeatureExtractor).
        image: ``(B, C, H, W)`` in [0, 1].
        input_range: What the images are mapped to first.
    """
    if input_range == "[-1,1]":
        image = 2 * image - 1
    net = network.net
    with network.runtime.computing(image.device):
        if _has_codebook(net):
            return Encoding(list(net.features(image)))
        levels = net(image)
        if not isinstance(levels, dict):
            raise TypeError("it gives an image; an encoder has features(x), or gives a dict of feature maps")
        return Encoding(list(levels.values()))


def add_latent(network: FrozenNetwork, encoding: Encoding) -> Tensor:
    """Go on from the feature levels to the latent, which is kept with them."""
    if encoding.latent is None:
        with network.runtime.computing(encoding.levels[-1].device):
            encoding.latent = network.net.latent_from_features(encoding.levels)
    return encoding.latent


def _has_codebook(net: nn.Module) -> bool:
    return hasattr(net, "latent_from_features")


@torch.no_grad()
def probe_encoder(model: KDModel, name: str, latent: bool = False) -> Encoding:
    """Encode one black image of the training's size, to learn what the encoder gives.

    Raises:
        ValueError: If ``network_<name>`` is not defined, is no encoder, gives no latent where one is wanted, cannot
            take images of this size, or has runtime options that an encoder cannot have.
    """
    network = model.frozen_network(name)
    if network.normalised:
        raise ValueError(f"runtime.{name}: mean and std are for teachers; what an encoder sees is set by input_range")
    if network.runtime.precision == "fp16" and model.runtime.precision != "fp16":
        raise ValueError(
            f"runtime.{name}.precision: gradients pass the encoder, and in fp16 they vanish where the loss is not "
            f"scaled, which it is when runtime.g.precision is fp16; use bf16"
        )
    if latent and not _has_codebook(network.net):
        raise ValueError(f"network_{name} ({type(network.net).__name__}) has no codebook; name a VQGAN as the encoder")
    image = torch.zeros(model.output_shape("g"), device=model.device)
    try:
        encoding = encode(network, image, "[0,1]")
        if latent:
            add_latent(network, encoding)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"network_{name} ({type(network.net).__name__}) is no encoder: {error}") from error
    except (RuntimeError, ValueError) as error:
        size = "×".join(map(str, image.shape[2:]))
        raise ValueError(f"network_{name} cannot encode the training's {size} images: {error}") from error
    return encoding
