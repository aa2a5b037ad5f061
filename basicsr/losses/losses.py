"""The losses under the module name of BasicSR 1.3; they are in :mod:`~basicsr.losses.basic_loss`."""

from basicsr.losses.basic_loss import (
    CharbonnierLoss,
    L1Loss,
    MSELoss,
    PerceptualLoss,
    PSNRLoss,
    WeightedTVLoss,
    _reduction_modes,
    charbonnier_loss,
    l1_loss,
    mse_loss,
)

__all__ = [
    "CharbonnierLoss",
    "L1Loss",
    "MSELoss",
    "PSNRLoss",
    "PerceptualLoss",
    "WeightedTVLoss",
    "_reduction_modes",
    "charbonnier_loss",
    "l1_loss",
    "mse_loss",
]
