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
        names: The names of the losses in the log, such as ``l_pix``. A loss named ``<name>_…`` shares the weight of
            ``<name>``: it is part of the same term. Any other loss, such as a recipe's own, is added unweighted.
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
        """The current weight of each loss, for the log: ``weight_<name>``."""
        return {f"weight_{name.removeprefix('l_')}": torch.exp(-s.detach()) for name, s in self.log_scales.items()}

    def _section(self, name: str) -> str | None:
        """The name among ``names`` whose weight a loss has; None for a loss that is not weighted."""
        matching = [known for known in self.log_scales if name == known or name.startswith(f"{known}_")]
        return max(matching, key=len, default=None)
