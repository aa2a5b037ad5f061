"""The balance of several losses in one sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class UncertaintyBalance(nn.Module):
    """``Σ_i exp(−s_i) · L_i + s_i`` with a learnt ``s_i`` for each loss, that is, for each section of the options.

    The weight of a loss falls as its typical size grows: at the minimum over s_i it is ``1 / L_i``. Losses must be
    positive. Source: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018,
    Eq. 7, in the form for L1 losses, with s the logarithm of the scale; s starts at 0, the plain sum.

    Args:
        names: What the log calls the losses, as in ``l_pix``. A loss whose name goes on after one of these and ``_``
            shares its weight (the parts of one term). Any other loss, such as a recipe's own, is added as it is.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.log_scales = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in names})

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum that is minimised."""
        sections = {name: self._section(name) for name in losses}
        balanced = sum(
            loss * torch.exp(-self.log_scales[sections[name]]) if sections[name] else loss
            for name, loss in losses.items()
        )
        return balanced + sum(self.log_scales[section] for section in sorted({*sections.values()} - {None}))

    def weights(self) -> dict[str, Tensor]:
        """The present weight of each loss, for the log: ``weight_<name>``."""
        return {f"weight_{name.removeprefix('l_')}": torch.exp(-s.detach()) for name, s in self.log_scales.items()}

    def _section(self, name: str) -> str | None:
        """The name in the options' terms of what the log calls a loss; None for one that is not weighted."""
        fitting = [known for known in self.log_scales if name == known or name.startswith(f"{known}_")]
        return max(fitting, key=len, default=None)
