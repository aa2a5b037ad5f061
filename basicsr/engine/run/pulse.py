"""Signs of life of the processes of a run: they distinguish one that is stopped or swapped out from one that is slow.

Collectives notice a process that has ended by its closed connections. One that is stopped (SIGSTOP, a debugger) or
swapped out keeps them open, and the others wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.rendezvous import Member, Roster

INTERVAL = 2.0
"""Seconds between two signs of life."""
PATIENCE = 30.0
"""Seconds without one after which a process is stopped, and not slow: a thread of its own gives them."""
_LEFT = "left"
_END = "pulse/end"


class Pulse:
    """Gives this process's signs of life from a thread, and watches for those of the others on request.

    Args:
        roster: The processes of the run.
        end: What is to be done when another process has ended the run; called with its reason, from a thread. (Of three
            processes in a ring, one may wait for the stopped one alone, and not notice that the other has ended.)
    """

    def __init__(self, roster: Roster, end: Callable[[str], None]) -> None:
        self._members = [member for member in roster.members if member.rank != get_dist_info()[0]]
        self._roster, self._end = roster, end
        self._key = f"pulse/{get_dist_info()[0]}"
        self._closed = threading.Event()
        self._last_answer = 0.0
        self._seen: dict[int, tuple[str | None, float]] = {}
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def close(self) -> None:
        """This process has nothing more to compute, and gives no further signs."""
        self._closed.set()
        self._beating.join(timeout=2 * INTERVAL)

    def wait_for_silence(self) -> str | None:
        """Watch until another process gives no more signs of life.

        Returns:
            Which, in words; None when :meth:`close` is called before.
        """
        self._last_answer = time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()
        while not self._closed.wait(1.0):
            # The store is kept by rank 0 or its launcher, and does not answer when that one is stopped.
            if time.monotonic() - self._last_answer > PATIENCE:
                return f"{self._roster.members[0]}, or its launcher,"
            silent = [m for m in self._members if self._is_silent(m)]
            if silent:
                return ", ".join(map(str, silent))
        return None

    def end_run(self, reason: str) -> None:
        """Tell the other processes that this one ends the run, if they can be reached."""

        def tell() -> None:
            with suppress(RuntimeError):
                # by the connection that there is: a stopped process takes no new one
                self._roster.store.set(f"failed/{get_dist_info()[0]}", reason)
                self._roster.store.set(_END, reason)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        thread.join(5.0)

    def _is_silent(self, member: Member) -> bool:
        value, since = self._seen.get(member.rank, (None, time.monotonic()))
        return value != _LEFT and time.monotonic() - since > PATIENCE

    def _beat(self) -> None:
        with suppress(RuntimeError):  # the store is gone, and collectives will notice that
            store, count = self._roster.store.clone(), 0
            while True:
                store.set(self._key, str(count))
                if store.check([_END]):
                    self._end(store.get(_END).decode())
                if self._closed.wait(INTERVAL):
                    store.set(self._key, _LEFT)
                    return
                count += 1

    def _read(self) -> None:
        with suppress(RuntimeError):
            store = self._roster.store.clone()
            while not self._closed.wait(1.0):
                for member in self._members:
                    key = f"pulse/{member.rank}"
                    value = store.get(key).decode() if store.check([key]) else None
                    self._last_answer = now = time.monotonic()
                    if member.rank not in self._seen or self._seen[member.rank][0] != value:
                        self._seen[member.rank] = (value, now)
