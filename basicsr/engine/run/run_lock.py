"""One run in one folder: a lock that a run holds in its folder for as long as it lives.

``run.lock`` names the process. Whether it still lives is known on its own machine; on another one it is seen by the
time of the file, which the holder renews while it lives.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from basicsr.utils.atomic_file import temporary_name
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.files import not_a_file
from basicsr.utils.logger import get_root_logger
from basicsr.utils.misc import archive

from .holder import Holder, is_one_of_several

NAME = "run.lock"
RENEWAL = 15.0
"""Seconds after which the holder renews the time of its lock."""
PATIENCE = 120.0
"""Seconds without a renewal after which a lock of another machine is that of a run which was cut off."""


class FolderInUse(OSError):
    """Another run holds the folder."""


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
            with _naming(folder):
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
        with _naming(folder):
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


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """A block whose errors of the disk, such as a full one, name the folder."""
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        raise OSError(f"nothing can be written to the folder {folder}: {error.strerror or error}") from error


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
    if is_one_of_several():
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
