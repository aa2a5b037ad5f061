"""VQGAN: Taming Transformers for High-Resolution Image Synthesis (Esser et al., CVPR 2021, arXiv 2012.09841).

State-dict keys are those of the authors' release (CompVis/taming-transformers). :class:`VQGAN` is what distillation
needs of it: the encoder and the codebook. :class:`VQGANAutoEncoder` has the decoder as well, to be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .latent_encoder import LatentEncoder
from .size_requirement import SizeRequirement
from .vqgan_blocks import Decoder, Encoder
from .vqgan_config import DDConfig, explain_mismatch

ENCODER_KEYS = ("encoder.", "quant_conv.", "quantize.")
"""What the keys of the encoder, the projection onto the codebook's space, and the codebook begin with."""


class Quantization(NamedTuple):
    """A latent and the codes that are nearest to it.

    Attributes:
        latent: (B, embed_dim, h, w).
        codes: The codebook's entries, likewise; gradients flow to the codebook, not to the latent.
        indices: Their numbers (B, h, w).
    """

    latent: Tensor
    codes: Tensor
    indices: Tensor


class VectorQuantizer(nn.Module):
    """The codebook.

    Args:
        n_embed: Number of entries.
        embed_dim: Length of an entry.
    """

    def __init__(self, n_embed: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_embed, 1 / n_embed)

    def forward(self, z: Tensor) -> Quantization:
        """The entries nearest to a latent (B, embed_dim, h, w) (equation 2)."""
        codebook = self.embedding.weight
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):  # bf16 confuses neighbouring entries
            tokens = z.movedim(1, -1).flatten(0, 2).to(codebook.dtype)
            # ‖z − e‖² without ‖z‖², which is the same for all entries
            distances = torch.addmm(codebook.square().sum(dim=1), tokens, codebook.t(), alpha=-2)
            indices = distances.argmin(dim=1).view(z.shape[0], *z.shape[2:])
        return Quantization(z, self.embedding(indices).movedim(-1, 1), indices)


@ARCH_REGISTRY.register()
class VQGAN(LatentEncoder):
    """A VQGAN's encoder, ``quant_conv`` and codebook: image features at several levels, and a latent beside a codebook.

    Images may have any size of at least the stride. As in the release, the part that exceeds a multiple of the stride
    at the bottom and right affects features and latent only as far as the convolutions reach. The released weights
    expect images in [−1, 1].

    Checkpoints of the whole VQGAN load strictly: the keys of decoder, losses and discriminator are ignored. A
    checkpoint whose encoder or codebook does not fit is refused, strictly or not.

    Args:
        embed_dim: Length of a codebook entry.
        n_embed: Number of codebook entries.
        ddconfig: The encoder; see :class:`~basicsr.archs.vqgan_config.DDConfig`. The options of the f16 VQGAN of
            ImageNet are ``{ch: 128, ch_mult: [1, 1, 2, 2, 4], num_res_blocks: 2, attn_resolutions: [16], resolution:
            256, z_channels: 256}`` with an ``embed_dim`` of 256 and an ``n_embed`` of 1024 or 16384.

    Raises:
        ValueError: If the options contradict each other.
    """

    foreign_keys: tuple[str, ...] = ("decoder.", "post_quant_conv.", "loss.")
    """Prefixes of the keys of a whole checkpoint that this network ignores."""

    def __init__(self, embed_dim: PositiveInt, n_embed: PositiveInt, ddconfig: DDConfig) -> None:
        super().__init__()
        if embed_dim < 1 or n_embed < 1:
            raise ValueError(f"VQGAN needs `embed_dim` and `n_embed` of at least 1, not {embed_dim} and {n_embed}.")
        self._options = {"in_channels": 3, **ddconfig, "embed_dim": embed_dim, "n_embed": n_embed}
        self.encoder = Encoder(ddconfig)
        self.quant_conv = nn.Conv2d(ddconfig["z_channels"], embed_dim, 1)
        self.quantize = VectorQuantizer(n_embed, embed_dim)
        self.size_requirement = SizeRequirement(minimum=self.stride)

    @property
    def stride(self) -> int:
        """Pixels of the image along one side of a token: the f of an f16 VQGAN."""
        return self.encoder.stride

    @property
    def codebook(self) -> Tensor:
        """The codebook's entries (n_embed, embed_dim)."""
        return self.quantize.embedding.weight

    def features(self, x: Tensor) -> list[Tensor]:
        """The levels' features alone; see :meth:`encode`. The blocks after the last of them do not run."""
        return self.encoder.features(x)

    def latent_from_features(self, features: Sequence[Tensor]) -> Tensor:
        """The latent, computed from the features without repeating their computation."""
        return self.quant_conv(self.encoder.latent(features[-1]))

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features and latent in one pass.

        Args:
            x: (B, C, H, W).

        Returns:
            A feature of each level i = 0, 1, …, (B, C_i, ⌊H/2^i⌋, ⌊W/2^i⌋): the output of its first residual block,
            before attention. And the latent before quantisation (B, embed_dim, ⌊H/stride⌋, ⌊W/stride⌋).

        Raises:
            ValueError: If the image is smaller than the stride.
        """
        features = self.features(x)
        return features, self.latent_from_features(features)

    def forward(self, x: Tensor) -> Tensor:
        """The latent of (B, C, H, W); see :meth:`encode`."""
        return self.encode(x)[1]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [
            key for key in state_dict if key.startswith(tuple(prefix + foreign for foreign in self.foreign_keys))
        ]:
            del state_dict[key]
        theirs = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        own = self.state_dict()
        mismatch = explain_mismatch(
            _encoder_part(theirs), _encoder_part(own), self._options, self._options["resolution"]
        )
        if mismatch is not None:
            raise RuntimeError(mismatch)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _encoder_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(ENCODER_KEYS)}


@ARCH_REGISTRY.register()
class VQGANAutoEncoder(VQGAN):
    """A whole VQGAN, which restores an image from the codes nearest to its latent. Its files load as :class:`VQGAN`.

    Args:
        embed_dim: Length of a codebook entry.
        n_embed: Number of codebook entries.
        ddconfig: Encoder and decoder; see :class:`~basicsr.archs.vqgan_config.DDConfig`.

    Raises:
        ValueError: If the options contradict each other.
    """

    foreign_keys = ("loss.",)

    def __init__(self, embed_dim: PositiveInt, n_embed: PositiveInt, ddconfig: DDConfig) -> None:
        super().__init__(embed_dim, n_embed, ddconfig)
        self.post_quant_conv = nn.Conv2d(embed_dim, ddconfig["z_channels"], 1)
        self.decoder = Decoder(ddconfig)
        self.size_requirement = SizeRequirement(multiple_of=self.stride)

    def forward(self, x: Tensor, return_quantization: bool = False) -> Tensor | tuple[Tensor, Quantization]:
        """The image decoded from its codes.

        The encoder gets 2x − 1, and the decoder's output is mapped back, so that inside, values are in the range of the
        release. Gradients pass from the codes to the latent unchanged (straight-through).

        Args:
            x: (B, C, H, W) in [0, 1], the sides multiples of the stride.
            return_quantization: Whether to return the quantisation as well, which the training needs.

        Returns:
            The image (B, C, H, W), about in [0, 1]; or it and the quantisation.

        Raises:
            ValueError: If a side is not a multiple of the stride.
        """
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ValueError(
                f"VQGANAutoEncoder restores images whose sides are multiples of its stride {self.stride}, not of "
                f"{x.shape[-2]}×{x.shape[-1]} pixels"
            )
        quantization = self.quantize(super().forward(2 * x - 1))
        straight_through = quantization.latent + (quantization.codes - quantization.latent).detach()
        image = (self.decoder(self.post_quant_conv(straight_through)) + 1) / 2
        return (image, quantization) if return_quantization else image
