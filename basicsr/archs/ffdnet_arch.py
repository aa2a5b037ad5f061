"""FFDNet: Toward a Fast and Flexible Solution for CNN-based Image Denoising (Zhang et al., TIP 2018, arXiv 1710.04026).

State-dict keys are those of the authors' PyTorch release (github.com/cszn/KAIR).
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY

from .dncnn_arch import conv_stack
from .size_requirement import SizeRequirement

NoiseLevel = Annotated[float, Field(ge=0, le=255)]


@ARCH_REGISTRY.register()
class FFDNet(nn.Module):
    """Convolutions at half resolution; one more input channel holds the noise level.

    Inputs of any size are accepted: odd sides are extended by one pixel, as published, and the output is cropped.

    Args:
        in_nc: Input channels.
        out_nc: Output channels.
        nc: Channels of the features: 64 for grey images, 96 for colour.
        nb: Convolutions: 15 for grey images, 12 for colour.
        sigma: Standard deviation of the noise in [0, 255], used where ``forward`` is not given another. It is not in
            the state dict.

    Raises:
        ValueError: If ``sigma`` is outside [0, 255], or there are fewer than two convolutions.
    """

    size_requirement = SizeRequirement(multiple_of=2)

    def __init__(
        self,
        in_nc: PositiveInt = 1,
        out_nc: PositiveInt = 1,
        nc: PositiveInt = 64,
        nb: Annotated[int, Field(ge=2)] = 15,
        sigma: NoiseLevel = 25.0,
    ) -> None:
        super().__init__()
        if not 0 <= sigma <= 255:
            raise ValueError(f"FFDNet's `sigma` is a noise level in [0, 255], not {sigma}.")
        self.sigma = sigma
        self.model = conv_stack(4 * in_nc + 1, 4 * out_nc, nc, nb, batch_norm=False)

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Denoise an image.

        Args:
            x: (B, in_nc, H, W) in [0, 1].
            sigma: The noise levels (B, 1, 1, 1) or (1, 1, 1, 1), in [0, 1] as the image is; the constructor's if None.

        Returns:
            (B, out_nc, H, W).
        """
        height, width = x.shape[-2:]
        folded = F.pixel_unshuffle(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        level = folded.new_tensor(self.sigma / 255).view(1, 1, 1, 1) if sigma is None else sigma.to(folded)
        level = level.expand(len(folded), 1, *folded.shape[-2:])
        return F.pixel_shuffle(self.model(torch.cat([folded, level], dim=1)), 2)[..., :height, :width]
