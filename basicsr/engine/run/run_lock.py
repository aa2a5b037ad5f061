"""One run in one folder: a lock that a run holds in its folder for as long as it lives.

``run.lock`` names the process. Whether it still lives is known on its own machine; on another one it is seen by the
time of the file, which the holder renews while it lives.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from basicsr.utils.atomic_file import temporary_name
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.file_kind import not_a_file
from basicsr.utils.logger import get_root_logger
from basicsr.utils.misc import archive

NAME = "run.lock"
RENEWAL = 15.0
"""Seconds after which the holder renews the time of its lock."""
PATIENCE = 120.0
"""Seconds without a renewal after which a lock of another machine is that of a run which was cut off."""


class FolderInUse(OSError):
    """Another run holds the folder."""


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
        return cls(socket.gethostname(), pid, _machine(), _start_of(pid), time.time(), _launch(os.environ))

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


def _start_of(pid: int) -> str:
    """When the system started a process, in its own units; '' where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_alive(pid: int, started: str) -> bool:
    """Whether a process of this machine is there, and is not another one that was given its number since."""
    start = _start_of(pid)
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


def _launch(env: Mapping[str, str]) -> dict[str, Any]:
    """The job that a launcher can start again, and how often it has."""
    jobs = {}
    if env.get("SLURM_JOB_ID"):
        jobs["slurm"] = [env["SLURM_JOB_ID"], _number(env.get("SLURM_RESTART_COUNT"))]
    if env.get("TORCHELASTIC_RUN_ID", "none") != "none":
        jobs["torchrun"] = [env["TORCHELASTIC_RUN_ID"], _number(env.get("TORCHELASTIC_RESTART_COUNT"))]
    return jobs


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def require_free(folder: str | os.PathLike) -> None:
    """Refuse a folder that another run holds; nothing is written, so this holds for the moment only.

    Raises:
        FolderInUse: Naming the other process.
    """
    if get_dist_info()[0] == 0:
        _held_by_other(Path(folder), wait=False)


class RunLock:
    """Holds a run's folder, on rank 0; on other ranks it does nothing.

    A context manager that gives the folder back at its end. A process that is killed leaves the lock behind, and the
    next run takes it over.

    Args:
        folder: The run's folder.
        is_new: Whether the run begins: an earlier run's folder is then renamed, and an empty one made.

    Raises:
        FolderInUse: If another run holds it.
    """

    def __init__(self, folder: str | os.PathLike, is_new: bool) -> None:
        self._file: Path | None = None
        self._released = threading.Event()
        if get_dist_info()[0] != 0:
            return
        folder = Path(folder)
        if is_new and folder.exists():
            _take(folder)
            archived = archive(str(folder))
            (Path(archived) / NAME).unlink(missing_ok=True)
        try:
            folder.mkdir(parents=True, exist_ok=not is_new)
        except FileExistsError:
            _held_by_other(folder, wait=False)
            raise FolderInUse(f"another run has made the folder {folder} at the same moment") from None
        self._own = _take(folder)
        self._file = folder / NAME
        threading.Thread(target=self._renew, daemon=True).start()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._released.set()
        if self._file is not None and self._is_ours():
            self._file.unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        assert self._file is not None
        with suppress(OSError):
            return self._file.read_text(encoding="utf-8") == self._own
        return False

    def _renew(self) -> None:
        assert self._file is not None
        while not self._released.wait(RENEWAL):
            if self._is_ours():
                with suppress(OSError):  # a file server that is away; it may come back
                    os.utime(self._file)
            elif not self._released.is_set() and (holder := _read(self._file)[0]) is not None:
                # This process was suspended for so long that it was believed to be gone. Two runs in one folder would
                # spoil each other's files.
                get_root_logger().error(f"The run ends: its folder {self._file.parent} was taken over by {holder}.")
                os._exit(1)


def _take(folder: Path) -> str:
    """Write the lock.

    Returns:
        Its content.

    Raises:
        FolderInUse: If another run holds the folder.
        OSError: If a folder has the lock's name.
    """
    lock, content = folder / NAME, json.dumps(asdict(Holder.own()))
    aside = temporary_name(lock)
    try:
        aside.write_text(content, encoding="utf-8")
        for _ in range(10):
            try:
                _create(aside, lock, content)
                return content
            except FileExistsError:
                _remove_stale(lock)
    except FileNotFoundError:
        raise FolderInUse(f"another run has renamed the folder {folder} at the same moment") from None
    finally:
        with suppress(OSError):
            aside.unlink()
    raise FolderInUse(f"{lock} cannot be taken: other runs take it at the same moment")


def _create(aside: Path, lock: Path, content: str) -> None:
    """Make the lock, unless there is one: with its content, in one step where the file system has hard links.

    Raises:
        FileExistsError: If there is one.
        FileNotFoundError: If the folder was renamed; another one in its place may be another run's.
    """
    try:
        os.link(aside, lock)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        with _alone_in(lock.parent), open(lock, "x", encoding="utf-8") as file:
            file.write(content)


def _remove_stale(lock: Path) -> None:
    """Remove the lock of a run that is gone, or what is there in place of a lock.

    Raises:
        FolderInUse: If it is not gone.
        OSError: If it is a folder.
    """
    content = _held_by_other(lock.parent, wait=True)
    with _alone_in(lock.parent):
        # Others may have removed it since, and taken the folder. From here on nobody removes what stays.
        if _read(lock)[1] != content:
            return
        if content is None and lock.is_dir() and not lock.is_symlink():
            raise OSError(f"{lock} is a folder, and a run keeps its lock there: rename or remove it")
        if content is not None or os.path.lexists(lock) and not_a_file(lock) is not None:
            lock.unlink(missing_ok=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """A block in which no other process removes a folder's lock, where the system can exclude others."""
    descriptor = None
    try:
        with suppress(ImportError, OSError):  # not on every system, nor on every file server
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _held_by_other(folder: Path, wait: bool) -> str | None:
    """Look at a folder's lock.

    Args:
        folder: The folder.
        wait: Whether to find out, by waiting, whether a process of another machine is still there.

    Returns:
        The content of a lock whose holder is gone; None where there is no lock.

    Raises:
        FolderInUse: If its holder is there.
    """
    lock = folder / NAME
    holder, content, renewed = _read(lock)
    gone = None if holder is None else holder.is_gone()
    if holder is None or gone:
        if holder is not None and wait:
            get_root_logger().warning(f"{lock} was left by a run that is gone ({holder}); it is taken over.")
        return content
    what = f"the folder {folder} is in use by another run: {holder}"
    hint = "give this run another name, or end the other one first"
    if _launched_alike():
        hint += "; processes of one distributed run are started with --launcher slurm or pytorch"
    if gone is False:
        raise FolderInUse(f"{what}; {hint}")
    return _wait_for_sign(lock, what, hint, content, renewed) if wait else content


def _wait_for_sign(lock: Path, what: str, hint: str, content: str | None, renewed: float) -> str | None:
    """Wait until a lock of another machine is renewed, or for so long that its holder must be gone."""
    age = _clock_of(lock.parent) - renewed
    if age < PATIENCE:
        get_root_logger().warning(
            f"{lock} is of another machine ({what}), and was renewed {max(age, 0):.0f} s ago: waiting for up to "
            f"{PATIENCE - age:.0f} s to see whether that run is still there. If it is not, delete the file."
        )
    while age < PATIENCE:
        time.sleep(min(1.0, RENEWAL))
        holder, now_content, now_renewed = _read(lock)
        if holder is None or now_content != content:
            return now_content
        if now_renewed != renewed:
            raise FolderInUse(f"{what}; it was renewed just now, so that run is there; {hint}")
        age = _clock_of(lock.parent) - renewed
    get_root_logger().warning(f"{lock} has not been renewed for {age:.0f} s ({what}): it is taken over.")
    return content


def _clock_of(folder: Path) -> float:
    """The present time by the clock that the times of a folder's files are by."""
    probe = temporary_name(folder / NAME)
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _read(lock: Path) -> tuple[Holder | None, str | None, float]:
    """A lock's holder, its content, and when it was renewed; a holder of None where there is none, or nothing that
    this class has written."""
    if not_a_file(lock) is not None:
        return None, None, 0.0
    try:
        content, renewed = lock.read_text(encoding="utf-8", errors="replace"), lock.stat().st_mtime
    except FileNotFoundError:
        return None, None, 0.0
    try:
        return Holder(**json.loads(content)), content, renewed
    except (ValueError, TypeError):
        return None, content, renewed


def _launched_alike() -> bool:
    """Whether a launcher has started this process among others."""
    return any(_number(os.environ.get(key)) > 1 for key in ("SLURM_STEP_NUM_TASKS", "WORLD_SIZE"))
