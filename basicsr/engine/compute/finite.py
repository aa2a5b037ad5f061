"""Skips steps with NaN or infinite gradients, without synchronising with the device at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class FiniteGuard:
    """Finds steps whose gradients are not finite, counts them, and remembers the first and its loss.

    The counts stay on the device until :meth:`report` reads them. Every rank decides alike, because the gradients have
    been averaged.

    Args:
        device: The device of the gradients.
        limit: The training stops after this many skipped steps in a row.
    """

    def __init__(self, device: torch.device, limit: int) -> None:
        self.limit = limit
        self._skipped = torch.zeros((), device=device)
        self._in_a_row = torch.zeros((), device=device)
        self._longest = torch.zeros((), device=device)
        self._first = torch.zeros(2, device=device)  # iteration, number of the loss (from 1; 0: none was bad itself)
        self._names: list[str] = []
        self._known: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def bad_step(self, iteration: int, losses: Mapping[str, Tensor], gradients: Sequence[Tensor]) -> Tensor:
        """Check a step before it is taken.

        Args:
            iteration: The iteration, for the report.
            losses: This rank's losses by name.
            gradients: The gradients, the same on all ranks.

        Returns:
            1.0 if the step must be skipped, else 0.0, a float32 tensor on the device.
        """
        filled = [gradient for gradient in gradients if gradient.numel()]  # nothing has no largest value
        norms = torch._foreach_norm(filled, torch.inf) if filled else [self._skipped]
        finite = torch.stack([norm.float() for norm in norms]).isfinite().all()
        bad = (~finite).float()
        flags = ~torch.stack([loss.detach().float().sum() for loss in losses.values()]).isfinite()
        numbers = self._numbers(tuple(losses))
        first_number = torch.where(flags, numbers, torch.inf).min()
        first_number = torch.where(first_number.isinf(), 0.0, first_number)
        self._skipped += bad
        self._in_a_row = (self._in_a_row + bad) * bad
        self._longest = torch.maximum(self._longest, self._in_a_row)
        found = torch.stack([torch.full_like(bad, float(iteration)), first_number])
        self._first = torch.where((self._first[0] == 0) & (bad == 1), found, self._first)
        return bad

    def _numbers(self, names: tuple[str, ...]) -> Tensor:
        """The numbers of losses, from 1 in order of first appearance, on the device."""
        if names not in self._known:
            self._names += [name for name in names if name not in self._names]
            numbers = [float(self._names.index(name) + 1) for name in names]
            self._known[names] = torch.tensor(numbers, device=self._skipped.device)
        return self._known[names]

    def report(self) -> str | None:
        """Text about the steps skipped since the last report; None if there were none. Waits for the device.

        Raises:
            FloatingPointError: If as many steps in a row as the limit were skipped.
        """
        skipped, longest, iteration, number = torch.stack(
            [self._skipped, self._longest, *self._first.unbind()]
        ).tolist()
        if not skipped:
            return None
        culprit = f"{self._names[int(number) - 1]} was not finite" if number else "the gradients were not finite"
        text = f"{int(skipped)} step(s) were skipped; at iteration {int(iteration)}, the first, {culprit}"
        if longest >= self.limit:
            raise FloatingPointError(
                f"{text}. {int(longest)} in a row reach train.max_bad_steps ({self.limit}): lower the "
                f"learning rate or that loss's weight, clip gradients (train.clip_grad_norm), or use fp32."
            )
        self._skipped.zero_()
        self._longest.copy_(self._in_a_row)
        self._first.zero_()
        return text


def step_unless(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """``optimizer.step()`` unless ``bad`` is 1.

    A fused optimiser on CUDA reads ``bad`` on the device; for others the host reads it.
    """
    if bad.is_cuda and all(group.get("fused") for group in optimizer.param_groups):
        optimizer.grad_scale, optimizer.found_inf = None, bad  # the interface that GradScaler uses
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf
    elif not bad.item():
        optimizer.step()


def gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradients of the parameters that have one."""
    return [p.grad for p in parameters if p.grad is not None]
