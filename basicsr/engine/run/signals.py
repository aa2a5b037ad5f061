"""Stop cleanly on SIGTERM and SIGINT, at the same iteration on every rank."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from basicsr.engine.run.pulse import PATIENCE, Pulse
from basicsr.utils.dist_util import get_dist_info, get_roster
from basicsr.utils.logger import get_root_logger

STOPPED = 75
"""Exit code of a run that a signal ended after it was saved: sysexits' EX_TEMPFAIL, "try again later"."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CLOSE = b"\0"
_INTERVAL = 0.2  # seconds between two exchanges with the other ranks

_active: StopSignals | None = None


class EvaluationStopped(Exception):
    """An evaluation ended before its last image, on all ranks, because a signal asks the run to stop."""


class RunStopped(SystemExit):
    """The run stops before its last iteration, on all ranks."""


def stop_requested() -> bool:
    """Whether this process received a signal to stop; for long loops without collectives."""
    return _active is not None and _active.requested is not None


class StopSignals:
    """Context manager that records the first SIGTERM or SIGINT. A second one ends the process at once.

    A thread reads signals from the interpreter's wake-up file descriptor. A Python handler would wait for the main
    thread, which may be blocked in a collective whose peer is gone.

    One signal often arrives twice: GNU ``timeout`` sends it to the process and to its group; a scheduler sends it to
    the ranks and to a launcher, which forwards it. Signals within ``debounce`` seconds are taken as one.

    With several ranks, a signal needs all of them. If one of them is stopped itself, or swapped out, the run ends
    without saving, and says which.

    Attributes:
        requested: The name of the first signal, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._pulse: Pulse | None = None
        self._first_time = 0.0
        rank, world = get_dist_info()
        self._silent = rank != 0
        self.debounce = 0.2 if world == 1 else 1.0
        self._handlers: dict[signal.Signals, Any] = {}
        self._group: Any = None
        self._status = torch.zeros(2, dtype=torch.float64)  # whether to stop; seconds of the last iteration
        self._reduction: Any = None
        self._iterations_to_skip = 0
        self._last_time = 0.0

    def __enter__(self) -> StopSignals:
        global _active
        if get_dist_info()[1] > 1:
            # A separate CPU group: the exchange never waits for the GPU, nor mixes with DDP's messages.
            self._group = dist.new_group(backend="gloo")
            roster = get_roster()
            self._pulse = None if roster is None else Pulse(roster, _end_run)
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            _active = self
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            for number in SIGNALS:
                # Without a handler of Python's the interpreter would not see the signal.
                self._handlers[number] = signal.signal(number, lambda *_: None)
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _active
        if self._reduction is not None and (kind is None or issubclass(kind, RunStopped)):
            self._reduction.wait()  # the last exchange; all ranks have started it
        if self._pulse is not None:
            self._pulse.close()
        if self._handlers:
            _active = None
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
            os.write(self._writer, _CLOSE)  # closing it is not enough: loader workers have inherited it
            self._thread.join()
            os.close(self._writer)
            os.close(self._reader)

    def should_stop(self) -> bool:
        """Whether to stop after this iteration; the same on every rank. Every rank must call it after every iteration.

        The ranks exchange whether they received a signal while the next iteration is computed, and read the result
        after it. They exchange about five times a second: they also share the longest duration of an iteration, from
        which all compute how many iterations to skip. So a run continues for at least one iteration after a signal.
        """
        if self._group is None:
            return self.requested is not None
        now = time.monotonic()
        duration, self._last_time = now - self._last_time, now
        if self._reduction is not None:
            self._reduction.wait()
            self._reduction = None
            stop, longest = self._status.tolist()
            if stop:
                return True
            self._iterations_to_skip = int(_INTERVAL / max(longest, 1e-6))
        if self._iterations_to_skip > 0:
            self._iterations_to_skip -= 1
            return False
        self._status[0], self._status[1] = float(self.requested is not None), duration
        self._reduction = dist.all_reduce(self._status, dist.ReduceOp.MAX, self._group, async_op=True)
        return False

    def _watch(self) -> None:
        while (number := os.read(self._reader, 1)) != _CLOSE:
            if number[0] not in SIGNALS:
                continue  # a signal with another handler
            name = signal.Signals(number[0]).name
            if self.requested is None:
                self.requested, self._first_time = name, time.monotonic()
                if not self._silent:
                    get_root_logger().warning(
                        f"{name} received: the run is saved after this iteration; a second signal ends it at once."
                    )
                if self._pulse is not None:
                    threading.Thread(target=self._watch_others, args=(self._pulse, name), daemon=True).start()
            elif time.monotonic() - self._first_time > self.debounce:
                _end_at_once(128 + number[0])

    def _watch_others(self, pulse: Pulse, name: str) -> None:
        """End the run if it cannot stop together, because another rank does not run."""
        silent = pulse.wait_for_silence()
        if silent is None:
            return
        reason = (
            f"{name} asks it to stop, and {silent} has given no sign of life for {PATIENCE:.0f} s: stopped (SIGSTOP, a "
            f"debugger), swapped out or cut off"
        )
        pulse.end_run(reason)
        _end_run(reason)


def _end_run(reason: str) -> None:
    """End this process, without the others."""
    get_root_logger().error(
        f"The run ends: {reason}. What was computed since the last checkpoint is lost; --auto_resume continues from it."
    )
    _end_at_once(1)


def _end_at_once(code: int) -> None:
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(code)


def _reset_in_child() -> None:
    """Restore the default signal handling in a forked loader worker, which has nothing to save."""
    global _active
    if _active is not None:
        _active = None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_reset_in_child)
