"""What a rank says when another is gone, in a world that is played; and two processes that really end together."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from basicsr.engine.run import peers
from basicsr.engine.run.peers import coordinated_exit
from basicsr.engine.run.signals import RunStopped
from basicsr.utils.dist_util import init_dist
from basicsr.utils.rendezvous import Member, Roster

from ...helpers import free_port, run_forked

HOST = socket.gethostname()
LOST = "Connection closed by peer [127.0.0.1]:4711\nsecond line"
UNKNOWN = "killed, out of memory, or cut off; its own output or the kernel's log has the reason"
HINT = "What was computed since the last checkpoint is lost; --auto_resume continues from it."


@pytest.fixture(scope="module")
def ended_pid():
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def world(monkeypatch, ended_pid):
    """This process as rank 1 of three; rank 0 has ended, and rank 2 is on another machine, with the same number."""

    def play(patience=0.0, store=None):
        places = [(HOST, ended_pid), (HOST, os.getpid()), ("far", ended_pid)]
        members = [Member(rank, 3, host, pid, 0) for rank, (host, pid) in enumerate(places)]
        roster = Roster(store or dist.HashStore(), members)
        monkeypatch.setattr(peers, "get_dist_info", lambda: (1, 3))
        monkeypatch.setattr(peers, "get_roster", lambda: roster)
        monkeypatch.setattr(peers, "_TIMEOUT", patience)
        monkeypatch.setattr(dist, "get_rank", lambda: 1)
        monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
        return roster

    return play


def end_with(error):
    with coordinated_exit() as progress:
        progress.started = True
        raise error


def test_a_run_that_has_not_started_has_lost_nothing(world, log):
    world()
    with pytest.raises(SystemExit), coordinated_exit():
        raise RuntimeError(LOST)
    (message,) = log.messages
    assert "It did not start, and nothing was written." in message and HINT not in message


def sentence_after(error, log):
    """Why the run ends, as the log has it."""
    with pytest.raises(SystemExit) as exit:
        end_with(error)
    assert exit.value.code == 1 and exit.value.__cause__ is error
    (message,) = log.messages
    start, end = "The run ends: ", f". {HINT} ({str(error).splitlines()[0]})"
    assert message.startswith(start) and message.endswith(end)
    return message.removeprefix(start).removesuffix(end)


def test_a_rank_that_has_told_its_reason(world, log, ended_pid):
    roster = world()
    roster.store.set("failed/2", "ValueError: the patch is too large")
    expected = f"rank 2 (host far, process {ended_pid}) failed with ValueError: the patch is too large"
    assert sentence_after(RuntimeError(LOST), log) == expected


def test_a_rank_whose_process_is_gone(world, log, ended_pid):
    """It is known at once, also while there would be time to wait for another."""
    world(patience=20)
    start = time.monotonic()
    expected = f"rank 0 (host {HOST}, process {ended_pid}) ended without a word: {UNKNOWN}"
    assert sentence_after(RuntimeError(LOST), log) == expected
    assert time.monotonic() - start < 10


def test_a_rank_elsewhere_that_gives_no_sign(world, log, ended_pid):
    world().store.set("alive/0", "")
    expected = f"rank 2 (host far, process {ended_pid}) gave no sign of life within 0 s: {UNKNOWN}"
    assert sentence_after(RuntimeError(LOST), log) == expected


def test_all_ranks_are_there(world, log):
    roster = world(patience=20)
    for rank in (0, 2):
        roster.store.set(f"alive/{rank}", "")
    expected = "the connection between the ranks broke, though all of them are there"
    assert sentence_after(RuntimeError(LOST), log) == expected
    assert roster.store.check(["alive/1"]), "it says so to the others"


class GoneStore:
    def set(self, *args):
        raise dist.DistNetworkError("the store is gone")


def test_the_store_is_gone_with_its_owner(world, log, ended_pid):
    world(store=GoneStore())
    gone = f"rank 0 (host {HOST}, process {ended_pid}), or its launcher, is gone"
    assert sentence_after(RuntimeError(LOST), log) == f"{gone}; its own output may have the reason"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("too large\nand more"), "ValueError: too large"),
        (ValueError(), "ValueError()"),
        (ConnectionError("gloo"), "ConnectionError: gloo"),
        (RuntimeError("shapes differ"), "RuntimeError: shapes differ"),
        (KeyboardInterrupt(), "KeyboardInterrupt()"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_its_own_is_told_to_the_others_and_raised(world, log, error, told):
    roster = world()
    with pytest.raises(type(error)) as raised:
        end_with(error)
    assert raised.value is error
    assert roster.store.check(["failed/1"])
    assert roster.store.get("failed/1").decode() == told
    assert log.messages == []


def test_it_is_raised_also_where_nobody_can_be_told(world):
    world(store=GoneStore())
    with pytest.raises(ValueError, match="too large"):
        end_with(ValueError("too large"))


@pytest.mark.parametrize("error", [ValueError("too large"), RuntimeError(LOST), RunStopped(75)])
def test_a_single_process_raises_what_it_raises(log, error):
    with pytest.raises(type(error)) as raised:
        end_with(error)
    assert raised.value is error
    assert log.messages == []


def test_a_stopped_run_lets_go_of_what_its_frames_hold():
    """Above all of loaders, whose workers end in order then."""
    ended = []

    class Loader:
        def __del__(self):
            ended.append(True)

    def train():
        loader = Loader()  # noqa: F841
        raise RunStopped(75)

    with pytest.raises(RunStopped) as stop, coordinated_exit():
        train()
    assert stop.value.code == 75
    assert ended == [True]


# Two processes


def be_rank(rank, port, folder, deed):
    """The life of a rank of two, in a process of its own; what it prints goes to a file."""
    output = os.open(folder / f"output_{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    init_dist("pytorch")
    with coordinated_exit() as progress:
        progress.start()
        deed(rank, folder)
    assert not dist.is_initialized(), "the group is left at the end"
    assert (folder / "written").exists(), "no rank leaves before the slowest"


@pytest.fixture
def two_ranks(tmp_path):
    def run(deed):
        port = free_port()
        ranks = run_forked(be_rank, [(rank, port, tmp_path, deed) for rank in (0, 1)])
        outputs = [(tmp_path / f"output_{rank}").read_text() for rank in (0, 1)]
        return [(process.exitcode, process.pid, text) for process, text in zip(ranks, outputs)]

    return run


def test_two_ranks_leave_together(two_ranks):
    def deed(rank, folder):
        dist.all_reduce(torch.ones(1))
        if rank == 0:
            time.sleep(0.5)
            (folder / "written").touch()

    assert [code for code, _, _ in two_ranks(deed)] == [0, 0]


@pytest.mark.parametrize("lost", [0, 1])
def test_the_rank_that_is_left_names_the_one_that_was_killed(two_ranks, lost):
    def deed(rank, folder):
        dist.all_reduce(torch.ones(1))
        if rank == lost:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.ones(1))

    ends = two_ranks(deed)
    assert [ends[lost][0], ends[1 - lost][0]] == [-signal.SIGKILL, 1]
    name = f"ERROR: The run ends: rank {lost} (host {HOST}, process {ends[lost][1]})"
    assert name in ends[1 - lost][2]
    assert "Traceback" not in ends[1 - lost][2]


def test_the_reason_of_a_rank_that_fails_reaches_the_other(two_ranks):
    def deed(rank, folder):
        dist.all_reduce(torch.ones(1))
        if rank == 1:
            raise ValueError("the patch is too large")
        dist.all_reduce(torch.ones(1))

    (code, _, text), (other_code, pid, other_text) = two_ranks(deed)
    assert (code, other_code) == (1, 1)
    assert f"rank 1 (host {HOST}, process {pid}) failed with ValueError: the patch is too large. {HINT}" in text
    assert "Traceback" not in text
    assert "Traceback" in other_text
