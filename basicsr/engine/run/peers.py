"""The processes of a run end together: in order when all is well, and with the reason when one of them fails."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from basicsr.engine.run.signals import RunStopped
from basicsr.utils.dist_util import get_dist_info, get_roster
from basicsr.utils.logger import get_root_logger
from basicsr.utils.rendezvous import Member, Roster

_TIMEOUT = 5.0  # seconds in which the ranks that are left say so
_LOST_CONNECTION = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|socket|store", re.I)


class Progress:
    """How far a run has come.

    Attributes:
        started: Whether it has written anything.
    """

    def __init__(self) -> None:
        self.started = False

    def ready(self) -> None:
        """Wait until every rank is ready to start."""
        if get_dist_info()[1] > 1:
            dist.all_reduce(torch.zeros(1))  # of the CPU, and so by gloo, which notices a rank that is gone

    def start(self) -> None:
        """From now on the run writes files. Waits until every rank comes here."""
        self.ready()
        self.started = True


@contextmanager
def coordinated_exit() -> Iterator[Progress]:
    """Around the part of a run that has a process group, which it leaves at the end.

    When a rank raises an error, it tells the others before it ends. When another rank is gone, which collectives
    notice by its closed connections, the error says which and why, and the run ends.

    Yields:
        An object to inform when the run starts.

    Raises:
        SystemExit: With code 1, after another rank's end was logged.
    """
    world, progress = get_dist_info()[1], Progress()
    try:
        yield progress
    except RunStopped as stop:
        _release_frames(stop)
        _leave_group()
        raise
    except BaseException as error:
        roster = get_roster()
        if world == 1 or roster is None:
            raise
        if not (isinstance(error, RuntimeError) and _LOST_CONNECTION.search(str(error))):
            _publish_failure(roster, error)
            raise
        _release_frames(error)
        lost = _find_lost_ranks(roster)
        loss = "What was computed since the last checkpoint is lost; --auto_resume continues from it."
        get_root_logger().error(
            f"The run ends: {lost}. {loss if progress.started else 'It did not start, and nothing was written.'} "
            f"({str(error).splitlines()[0]})"
        )
        raise SystemExit(1) from error
    else:
        _leave_group()


def _release_frames(error: BaseException) -> None:
    """Let go of what the frames that have raised still hold: above all the loaders, whose workers then end in order."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__context__


def _leave_group() -> None:
    if dist.is_initialized():
        dist.barrier()  # a launcher may end all ranks when one leaves: not before rank 0 has written everything
        dist.destroy_process_group()


def _publish_failure(roster: Roster, error: BaseException) -> None:
    text = str(error).splitlines()
    with suppress(RuntimeError):  # the store is gone: then the others will notice by themselves
        roster.store.set(f"failed/{dist.get_rank()}", f"{type(error).__name__}: {text[0]}" if text else repr(error))


def _find_lost_ranks(roster: Roster) -> str:
    """Which ranks are gone, in words, with the reason if they gave one."""
    rank = dist.get_rank()
    with suppress(RuntimeError):
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()  # its closed connections rouse the ranks that wait for this one
    others = [member for member in roster.members if member.rank != rank]
    deadline = time.monotonic() + _TIMEOUT
    try:
        roster.store.set(f"alive/{rank}", "")
        while True:
            for member in others:
                if roster.store.check([f"failed/{member.rank}"]):
                    return f"{member} failed with {roster.store.get(f'failed/{member.rank}').decode()}"
            silent = [member for member in others if not roster.store.check([f"alive/{member.rank}"])]
            ended = [member for member in silent if _has_ended(member)]
            if ended or not silent or time.monotonic() > deadline:
                break
            time.sleep(0.1)
    except RuntimeError:
        return f"{roster.members[0]}, or its launcher, is gone; its own output may have the reason"
    if not silent:
        return "the connection between the ranks broke, though all of them are there"
    names = ", ".join(map(str, ended or silent))
    verb = "ended without a word" if ended else f"gave no sign of life within {_TIMEOUT:.0f} s"
    return f"{names} {verb}: killed, out of memory, or cut off; its own output or the kernel's log has the reason"


def _has_ended(member: Member) -> bool:
    """True if the process is known to be gone, which can be seen on its own machine only."""
    if member.host != socket.gethostname():
        return False
    try:
        os.kill(member.pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False
