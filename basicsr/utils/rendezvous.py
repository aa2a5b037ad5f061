"""The rendezvous of a distributed run: all ranks join before the first collective, or the run ends with the reason.

Ranks join through a key-value store. A store may outlive an attempt (torchrun keeps one over restarts), so its entries
are verified: rank 0 calls every rank that has joined by its one-time token, and the rank is present once it replies.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

_POLL_INTERVAL = 0.05  # seconds between two reads of the store


class LaunchError(RuntimeError):
    """The processes of a run could not start together; the message says what to do."""


@dataclass(frozen=True)
class Member:
    """A process of the run.

    Attributes:
        restarts: How often its launcher has restarted it.
    """

    rank: int
    world_size: int
    host: str
    pid: int
    restarts: int

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, process {self.pid})"


@dataclass(frozen=True)
class Roster:
    """All processes of the run, in the order of their ranks, and a store for this attempt only."""

    store: Any
    members: list[Member]

    @property
    def restarted(self) -> bool:
        """Whether a launcher has restarted any of them."""
        return any(member.restarts > 0 for member in self.members)

    def wait_until_connected(self, rank: int, timeout: float) -> None:
        """Wait until every rank has set up its process group, so that none leaves while another connects to it.

        A rank that does not get so far in time, or has gone, is left to the first collective: its error says who is
        lost, and why.

        Args:
            rank: This process's rank.
            timeout: Seconds to wait.
        """
        from torch.distributed import DistError

        with suppress(DistError):
            self.store.set(f"connected/{rank}", "")
            self.store.wait([f"connected/{member.rank}" for member in self.members], timedelta(seconds=timeout))


def read_rank_env(env: Mapping[str, str]) -> tuple[int, int, int]:
    """``RANK``, ``WORLD_SIZE`` and ``MASTER_PORT``.

    Raises:
        LaunchError: If one is not a number, or they contradict each other.
    """
    values = []
    for key in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        if not env[key].strip().isdigit():
            raise LaunchError(f"the environment variable {key} must be a whole number, not '{env[key]}'")
        values.append(int(env[key]))
    rank, world, port = values
    if rank >= world:
        raise LaunchError(
            f"RANK={rank} with WORLD_SIZE={world}: ranks count from 0, so WORLD_SIZE must be larger than every rank"
        )
    return rank, world, port


def assemble(rank: int, world: int, address: str, port: int, timeout: float) -> Roster:
    """Wait until all ranks are present.

    Args:
        rank: This process's rank.
        world: Number of ranks.
        address: The host of the store: that of rank 0, or of its launcher.
        port: Its port.
        timeout: Seconds to wait.

    Raises:
        LaunchError: If the store cannot be created or reached; if ranks are missing, have another ``WORLD_SIZE`` or
            occur twice. Every rank that joined gets the same message.
    """
    from torch.distributed import PrefixStore

    store = _open_store(rank, world, address, port, timeout)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    me = Member(rank, world, socket.gethostname(), os.getpid(), restarts)
    token = secrets.token_hex(8)
    store.set(f"join/{rank}", json.dumps({"token": token, "member": asdict(me)}))
    if rank == 0:
        session, members = token, _lead_assembly(store, me, token, timeout)
    else:
        session, members = _join_assembly(store, me, token, timeout, f"{address}:{port}")
    return Roster(PrefixStore(session, store), members)


def _open_store(rank: int, world: int, address: str, port: int, timeout: float) -> Any:
    from torch.distributed import DistError, PrefixStore, TCPStore

    # torchrun keeps the store in its own process; elsewhere rank 0 does.
    is_host = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = TCPStore(
            address, port, world, is_host, timedelta(seconds=timeout), wait_for_workers=False, multi_tenant=True
        )
    except DistError as error:
        reason = str(error).splitlines()[0]
        if is_host:
            raise LaunchError(
                f"rank 0 cannot listen at port {port} ({reason}). Another run, or another process with RANK=0, may use "
                f"it: choose another MASTER_PORT (torchrun: --master_port; scripts/dist_*.sh: PORT)."
            ) from error
        raise LaunchError(
            f"rank {rank} found nobody at {address}:{port} within {timeout:.0f} s ({reason}). MASTER_ADDR and "
            f"MASTER_PORT must name rank 0's machine, rank 0 must be running, and no firewall between them."
        ) from error
    return PrefixStore("basicsr", store)


def _lead_assembly(store: Any, me: Member, session: str, timeout: float) -> list[Member]:
    present = {0: me}
    deadline = time.monotonic() + timeout
    while len(present) < me.world_size:
        for rank in set(range(me.world_size)) - present.keys():
            entry = _read(store, f"join/{rank}")
            if entry is None:
                continue
            store.set(f"call/{entry['token']}", json.dumps(session))
            if store.check([f"ack/{session}/{entry['token']}"]):
                present[rank] = member = Member(**entry["member"])
                if member.world_size != me.world_size:
                    _abort(
                        store,
                        session,
                        f"{member} was started with WORLD_SIZE={member.world_size}, {me} with "
                        f"WORLD_SIZE={me.world_size}: all must have the same, the number of processes of the run",
                    )
        if time.monotonic() > deadline:
            missing = [str(rank) for rank in range(me.world_size) if rank not in present]
            _abort(
                store,
                session,
                f"WORLD_SIZE={me.world_size}, but rank {', '.join(missing)} did not join within {timeout:.0f} s; "
                f"present: {', '.join(str(present[rank]) for rank in sorted(present))}. Either WORLD_SIZE (torchrun: "
                f"--nnodes × --nproc_per_node) is wrong, or a process did not start or cannot reach rank 0; see its "
                f"output.",
            )
        time.sleep(_POLL_INTERVAL)
    members = [present[rank] for rank in range(me.world_size)]
    store.set(f"go/{session}", json.dumps({"members": [asdict(member) for member in members]}))
    return members


def _abort(store: Any, session: str, message: str) -> None:
    store.set(f"go/{session}", json.dumps({"error": message}))
    time.sleep(20 * _POLL_INTERVAL)  # the store may end with this process; let the others read it first
    raise LaunchError(message)


def _join_assembly(store: Any, me: Member, token: str, timeout: float, place: str) -> tuple[str, list[Member]]:
    from torch.distributed import DistError

    session = None
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() <= deadline:
            entry = _read(store, f"join/{me.rank}")
            if entry["token"] != token:
                other = Member(**entry["member"])
                raise LaunchError(f"two processes have RANK={me.rank}: this one ({me}) and {other}")
            called = _read(store, f"call/{token}")
            if called != session:  # rank 0 has joined, and reports the outcome within its own timeout
                session, deadline = called, time.monotonic() + timeout + 100 * _POLL_INTERVAL
            if session is not None:
                store.set(f"ack/{session}/{token}", "")
                outcome = _read(store, f"go/{session}")
                if outcome is not None:
                    if "error" in outcome:
                        raise LaunchError(outcome["error"])
                    return session, [Member(**member) for member in outcome["members"]]
            time.sleep(_POLL_INTERVAL)
        entry = _read(store, "join/0")
    except DistError as error:
        raise LaunchError(
            f"{me} lost rank 0 at {place} while the run was starting; rank 0's output has the reason"
        ) from error
    leader = entry and Member(**entry["member"])
    hint = "rank 0 has not joined"
    if leader:
        hint = f"{leader} was started with WORLD_SIZE={leader.world_size}, this process with {me.world_size}"
    raise LaunchError(f"{me} was not called by rank 0 at {place} within {timeout:.0f} s: {hint}")


def _read(store: Any, key: str) -> Any:
    return json.loads(store.get(key)) if store.check([key]) else None
