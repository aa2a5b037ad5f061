"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class StepTimer:
    """Splits single steps into named parts.

    Only steps that :meth:`start` names for measuring are measured: on CUDA that means waiting for the device at every
    part's end, which no other step does. A part inside another counts for itself alone.

    Args:
        device: The device to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.measuring = False
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = time.perf_counter()
        self._step_end: float | None = None
        self._waited: float | None = None

    def batch_arrived(self) -> None:
        """Call when a batch has been handed over: the time since the last step's end was spent waiting for it.

        Unless there is no last step, or something else came between."""
        self._waited = None if self._step_end is None else time.perf_counter() - self._step_end

    def start(self, measure: bool) -> None:
        """Begin a step; the parts of the last measured one are kept unless this one is measured."""
        self.measuring = measure
        if measure:
            self.seconds = {} if self._waited is None else {"data": self._waited}
            self._since = self._now()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside as that of ``name``."""
        if not self.measuring:
            yield
            return
        self._record_time()
        self._stack.append(name)
        try:
            yield
        finally:
            self._record_time()
            self._stack.pop()

    def end(self) -> None:
        """End the step."""
        if self.measuring:
            self._record_time()
            self.measuring = False
        self._step_end = time.perf_counter()

    def interrupted(self) -> None:
        """Call when something else came between two steps, such as a validation: the wait is then not for data."""
        self._step_end = None

    def _record_time(self) -> None:
        """Book the time since the last booking to the innermost part."""
        now = self._now()
        name = self._stack[-1] if self._stack else "other"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def summary(self) -> str:
        """The last measured step in words: ``0.52 s: data 2 %, student 31 %, …``; empty before there is one."""
        total = sum(self.seconds.values())
        if not total:
            return ""
        parts = ", ".join(f"{name} {100 * t / total:.0f} %" for name, t in self.seconds.items() if t > 0.005 * total)
        return f"{total:.3f} s: {parts}"

    def loading_advice(self, workers: Sequence[int]) -> str | None:
        """What to do where much of the last measured step was spent waiting for data; None where it was not.

        Args:
            workers: The loader processes of each training set.
        """
        if self.loader_share() <= 0.3:
            return None
        return (
            f"{self.loader_share():.0%} of the step is spent waiting for data: raise num_worker_per_gpu (now "
            f"{', '.join(map(str, workers))}) where there are idle cores, cut the images into sub-images, or use "
            f"io_backend: memmap."
        )

    def loader_share(self) -> float:
        """The part of the last measured step that was spent waiting for data, in [0, 1]."""
        total = sum(self.seconds.values())
        return self.seconds.get("data", 0.0) / total if total else 0.0
