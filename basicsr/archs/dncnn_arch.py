"""DnCNN: Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising (Zhang et al., TIP 2017,
arXiv 1608.03981).

State-dict keys are those of the authors' PyTorch release (github.com/cszn/KAIR).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from basicsr.utils.registry import ARCH_REGISTRY


def conv_stack(in_nc: int, out_nc: int, nc: int, nb: int, batch_norm: bool) -> nn.Sequential:
    """``nb`` 3×3 convolutions with a ReLU between two, after batch norm where there is one; neither first nor last.

    Raises:
        ValueError: If there are fewer than two.
    """
    if nb < 2:
        raise ValueError(f"`nb`, the number of convolutions, must be at least 2, not {nb}.")
    layers: list[nn.Module] = [nn.Conv2d(in_nc, nc, 3, 1, 1), nn.ReLU(inplace=True)]
    for _ in range(nb - 2):
        norm = [nn.BatchNorm2d(nc, eps=1e-4, momentum=0.9)] if batch_norm else []
        layers += [nn.Conv2d(nc, nc, 3, 1, 1), *norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(nc, out_nc, 3, 1, 1))


@ARCH_REGISTRY.register()
class DnCNN(nn.Module):
    """Convolutions that predict the noise, which is subtracted from the input.

    Args:
        in_nc: Input channels.
        out_nc: Output channels, as many.
        nc: Channels of the features.
        nb: Convolutions: 17 for a known noise level, 20 for a range of them and for colour.
        act_mode: ``BR``: batch norm and ReLU, to train with; ``R``: ReLU alone, as the released weights are, in which
            batch norm is merged into the convolutions.

    Raises:
        ValueError: If the arguments do not fit together.
    """

    def __init__(
        self,
        in_nc: PositiveInt = 1,
        out_nc: PositiveInt = 1,
        nc: PositiveInt = 64,
        nb: Annotated[int, Field(ge=2)] = 17,
        act_mode: Literal["BR", "R"] = "BR",
    ) -> None:
        super().__init__()
        if in_nc != out_nc:
            raise ValueError(
                f"DnCNN predicts its input's noise, so `in_nc` {in_nc} and `out_nc` {out_nc} must be equal."
            )
        if act_mode not in ("BR", "R"):
            raise ValueError(f"DnCNN's `act_mode` must be 'BR' or 'R', not '{act_mode}'.")
        self.model = conv_stack(in_nc, out_nc, nc, nb, batch_norm=act_mode == "BR")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to the same shape."""
        return x - self.model(x)
