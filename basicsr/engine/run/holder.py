"""Which process holds a folder, and whether it still lives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Holder:
    """A process that holds a folder.

    Attributes:
        host, pid: Its machine and number.
        machine: What tells its machine, since it was started, and its container from others.
        started: When the system started the process, by which a number that was given again is recognised.
        since: When it took the folder, in seconds since 1970.
        launch: Which restart of which job of a launcher it belongs to; empty without one.
    """

    host: str
    pid: int
    machine: str
    started: str
    since: float
    launch: dict[str, Any]

    @classmethod
    def own(cls) -> Holder:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, _machine(), start_of(pid), time.time(), launch_of(os.environ))

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None where that cannot be known from here."""
        here = Holder.own()
        if self.machine == here.machine:
            return not _is_alive(self.pid, self.started)
        for launcher in self.launch.keys() & here.launch.keys():
            (job, attempt), (own_job, own_attempt) = self.launch[launcher], here.launch[launcher]
            if job == own_job and attempt < own_attempt:
                return True  # a launcher starts a job again when the processes of the last attempt are gone
        return None

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on host {self.host}, since {since} ({_duration(time.time() - self.since)} ago)"


def _machine() -> str:
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts) or socket.gethostname()


def start_of(pid: int) -> str:
    """When the system started a process, in its own units; '' where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_alive(pid: int, started: str) -> bool:
    """Whether a process of this machine is there, and is not another one that was given its number since."""
    start = start_of(pid)
    if start or os.path.isdir(f"/proc/{pid}"):  # without a start it has ended, and its parent has not looked yet
        return start == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


def _duration(seconds: float) -> str:
    """A duration in words, roughly."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def launch_of(env: Mapping[str, str]) -> dict[str, Any]:
    """The job that a launcher can start again, and how often it has."""
    jobs = {}
    if env.get("SLURM_JOB_ID"):
        jobs["slurm"] = [env["SLURM_JOB_ID"], _number(env.get("SLURM_RESTART_COUNT"))]
    if env.get("TORCHELASTIC_RUN_ID", "none") != "none":
        jobs["torchrun"] = [env["TORCHELASTIC_RUN_ID"], _number(env.get("TORCHELASTIC_RESTART_COUNT"))]
    return jobs


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def is_one_of_several() -> bool:
    """Whether a launcher has started this process among others."""
    return any(_number(os.environ.get(key)) > 1 for key in ("SLURM_STEP_NUM_TASKS", "WORLD_SIZE"))
