"""The interface of encoders with a codebook, for distillation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class LatentEncoder(nn.Module, ABC):
    """An image encoder whose last feature level continues to a latent beside a codebook."""

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """The codebook's entries ``(n_embed, D)``."""

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps of an image ``(B, C, H, W)``, shallow to deep; blocks after the last of them do not run."""

    @abstractmethod
    def latent_from_features(self, features: Sequence[Tensor]) -> Tensor:
        """The latent ``(B, D, h, w)``, computed from the feature maps."""
