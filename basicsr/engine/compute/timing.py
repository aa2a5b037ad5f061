"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class StepTimer:
    """Splits single steps into named parts.

    Only steps started with ``measure=True`` are measured: on CUDA they synchronise with the device at the end of every
    part. The time of a nested part is not included in that of the part around it.

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
        """Call when the loader has returned a batch: the time since the end of the last step was spent waiting.

        It is not, for the first step or after :meth:`interrupted`."""
        self._waited = None if self._step_end is None else time.perf_counter() - self._step_end

    def start(self, measure: bool) -> None:
        """Begin a step. The result of the last measured step is kept unless this one is measured."""
        self.measuring = measure
        if measure:
            self.seconds = {} if self._waited is None else {"data": self._waited}
            self._since = self._now()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context manager whose time is recorded as that of ``name``."""
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
        """Call after other work between two steps, such as a validation, so that it is not taken for waiting."""
        self._step_end = None

    def _record_time(self) -> None:
        """Add the time since the last call to the innermost part."""
        now = self._now()
        name = self._stack[-1] if self._stack else "other"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def summary(self) -> str:
        """The last measured step as text: ``0.52 s: data 2 %, student 31 %, …``; empty before there is one."""
        total = sum(self.seconds.values())
        if not total:
            return ""
        parts = ", ".join(f"{name} {100 * t / total:.0f} %" for name, t in self.seconds.items() if t > 0.005 * total)
        return f"{total:.3f} s: {parts}"

    def loading_advice(self, workers: Sequence[int]) -> str | None:
        """Advice if more than 30 % of the last measured step was spent waiting for data; otherwise None.

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
