"""Notices values that stay so close to their limit that they no longer teach anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LIMIT = 0.999
PATIENCE = 100  # iterations


class SaturationWatch(nn.Module):
    """Counts, for several values in [0, 1), the iterations in a row in which each was above 0.999.

    The counts stay on the device, and are part of the state dict. They are read at print iterations only.

    Args:
        labels: A name for each value.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self._labels = list(labels)
        self._has_values = False
        count = len(self._labels)
        self.register_buffer("count", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("lowest", torch.full((count,), torch.inf), persistent=False)
        self.register_buffer("squares", torch.zeros(count), persistent=False)

    @torch.no_grad()
    def add(self, values: Sequence[Tensor], squares: Sequence[Tensor]) -> None:
        """Take the values of a batch, or of a part of it: the lowest of an iteration decides.

        Args:
            values: A scalar for each label.
            squares: The mean square from which each was computed.
        """
        self.lowest.copy_(torch.minimum(self.lowest, torch.stack(list(values)).to(self.lowest)))
        self.squares.copy_(torch.stack(list(squares)))
        self._has_values = True

    @torch.no_grad()
    def end_iteration(self) -> bool:
        """Count the iteration, if there were values in it. Returns whether there were."""
        if not self._has_values:
            return False
        self.count.copy_((self.count + 1) * (self.lowest > LIMIT))
        self.lowest.fill_(torch.inf)
        self._has_values = False
        return True

    def found(self, interval: int) -> list[tuple[str, float]]:
        """The values that have been above the limit for 100 iterations, with the root of the last mean square.

        Each is reported once as long as it stays there, at the first call after those iterations.

        Args:
            interval: Iterations between two calls.
        """
        counts, roots = self.count.tolist(), self.squares.sqrt().tolist()
        rows = zip(self._labels, counts, roots)
        return [(label, root) for label, count, root in rows if PATIENCE <= count < PATIENCE + interval]
