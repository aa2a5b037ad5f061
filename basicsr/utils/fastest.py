"""Chooses the fastest form of a computation on this machine.

Which form is fastest depends on the processor: linear layers as 1×1 convolutions are twice as fast on one and slower on
another. Forms agree to rounding only, so a choice must not change while a run lasts, nor when it is resumed, nor from
one rank to another. That decides how choices are kept:

- A form is measured once for a machine and a case, and the outcome is written to a file that is never replaced. Of
  several processes that measure at once, the first to write decides for all.
- Where that file cannot be written or read, nothing is measured: the default form is used, which follows from the
  processor's instruction set alone.
- A form replaces the default only if it is faster by a tenth, so that a near tie always ends the same way.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .logger import get_root_logger
from .machine import machine_name
from .stopwatch import time_each

VARIABLE = "BASICSR_FORMS"
"""Environment variable: ``default`` measures nothing; ``attention=sdpa`` fixes a form; joined by commas."""

MARGIN = 1.1  # times as fast as the default that a form must be to replace it
MEASURED = (torch.float32, torch.bfloat16, torch.float16)

_suspended = False


class Forms:
    """The forms of one computation, and which of them is used.

    Args:
        computation: Its name, in the environment variable, the log and the names of files.
        *forms: Their names.
    """

    registered: dict[str, Forms] = {}

    def __init__(self, computation: str, *forms: str) -> None:
        self.computation = computation
        self.forms = forms
        self._chosen: dict[tuple, str] = {}
        Forms.registered[computation] = self

    def fastest(
        self,
        dtype: torch.dtype,
        case: tuple[str, ...],
        default: str,
        make: Callable[[], dict[str, Callable[[], Any]]],
    ) -> str:
        """The form to use where it is :func:`measurable`.

        Args:
            dtype: Of the tensors that are computed on.
            case: What else the choice depends on, besides the number of threads: sizes, whether gradients are needed.
            default: The form if nothing is measured.
            make: Builds one computation for each form, to be timed; see :func:`~basicsr.utils.stopwatch.time_each`.

        Raises:
            ValueError: If the environment variable ``BASICSR_FORMS`` names a form that does not exist.
        """
        key = (*case, str(dtype).removeprefix("torch."), f"{torch.get_num_threads()}threads")
        if key not in self._chosen:
            self._chosen[key] = self._choose("-".join((self.computation, *key)), default, make)
        return self._chosen[key]

    def clear(self) -> None:
        """Clear the choices of this process."""
        self._chosen.clear()

    def _choose(self, case: str, default: str, make: Callable[[], dict[str, Callable[[], Any]]]) -> str:
        measure, fixed = parse_setting(os.environ.get(VARIABLE, ""))
        form, reason = default, ""
        if self.computation in fixed:
            form, reason = fixed[self.computation], f"fixed by {VARIABLE}"
            if form not in self.forms:
                raise ValueError(f"{VARIABLE}: {self.computation} has the forms {', '.join(self.forms)}, not '{form}'")
        elif measure:
            form, reason = self._look_up_or_measure(case, default, make)
        if reason:
            get_root_logger().info(f"Form of {case}: {form} ({reason})")
        return form

    def _look_up_or_measure(
        self, case: str, default: str, make: Callable[[], dict[str, Callable[[], Any]]]
    ) -> tuple[str, str]:
        file = Path(f"{case}.json")
        try:
            file = cache_folder() / file
            if not file.exists():
                seconds = _measure_if_writable(file.parent, make)
                fastest = min(seconds, key=seconds.__getitem__)
                form = fastest if seconds[fastest] * MARGIN < seconds[default] else default
                milliseconds = {name: round(1e3 * value, 3) for name, value in seconds.items()}
                _write_if_absent(file, {"form": form, "milliseconds": milliseconds})
            record = json.loads(file.read_text(encoding="utf-8"))
            form, milliseconds = record["form"], dict(record["milliseconds"])
            if form not in self.forms:
                raise ValueError(f"no form is called '{form}'")
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            return default, f"the default, since {file} cannot be used: {type(error).__name__}: {error}"
        times = ", ".join(f"{name} {value} ms" for name, value in milliseconds.items())
        return form, f"{times}; {file}"


def measurable(x: torch.Tensor) -> bool:
    """Whether the form of a computation on ``x`` may be measured now: on a CPU, in float32, bfloat16 or float16, and
    not while a program is compiled or traced, or measuring is suspended. Elsewhere the default is used."""
    return not (_suspended or torch.compiler.is_compiling() or torch.jit.is_tracing()) and (
        x.device.type == "cpu" and x.dtype in MEASURED
    )


@contextmanager
def nothing_measured() -> Iterator[None]:
    """A block in which the default forms are used, and nothing is measured, looked up or remembered: a trial, whose
    inputs have other sizes than those of the run."""
    global _suspended
    before, _suspended = _suspended, True
    try:
        yield
    finally:
        _suspended = before


def power_of_two(count: int) -> int:
    """The next power of two: inputs of about the same size share a measurement."""
    return 1 << (count - 1).bit_length()


def cache_folder() -> Path:
    """Where the choices of this kind of machine are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "basicsr-kd" / "forms" / machine_name()


@lru_cache(maxsize=8)
def parse_setting(text: str) -> tuple[bool, dict[str, str]]:
    """Read the value of ``BASICSR_FORMS``.

    Returns:
        Whether to measure, and the forms that are fixed, by computation.

    Raises:
        ValueError: If it names an unknown computation, or is neither ``default`` nor of the form ``name=form``.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    fixed = dict(word.split("=", 1) for word in words if "=" in word)
    unknown = [name for name in fixed if name not in Forms.registered]
    unknown += [word for word in words if "=" not in word and word != "default"]
    if unknown:
        known = "; ".join(f"{name}={'|'.join(forms.forms)}" for name, forms in Forms.registered.items())
        raise ValueError(f"{VARIABLE}: '{unknown[0]}' is not understood; use default, or {known}")
    return "default" not in words, fixed


def _measure_if_writable(folder: Path, make: Callable[[], dict[str, Callable[[], Any]]]) -> dict[str, float]:
    """Time the forms, after making sure that the outcome can be kept.

    Raises:
        OSError: If nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return time_each(make)


def _write_if_absent(file: Path, record: dict[str, Any]) -> None:
    """Write a file atomically, unless another process has written it in the meantime."""
    descriptor, aside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(record, stream)
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):  # the other's choice holds
            os.link(aside, file)
    finally:
        os.unlink(aside)
