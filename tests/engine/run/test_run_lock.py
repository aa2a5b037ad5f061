"""One run in one folder, whoever comes at the same moment, and whoever was killed there."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from basicsr.engine.run import run_lock
from basicsr.engine.run.holder import Holder, launch_of, start_of
from basicsr.engine.run.run_lock import NAME, FolderInUse, RunLock, require_free
from basicsr.utils.full_disk import is_disk_full

from ...helpers import run_forked


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def other():
    """A process of this machine that lives, as the holder of a lock."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    while not start_of(process.pid):
        time.sleep(0.01)
    yield replace(Holder.own(), pid=process.pid, started=start_of(process.pid)), process
    process.kill()
    process.wait()


def lock(folder, holder, age=0.0):
    (folder / NAME).write_text(json.dumps(asdict(holder)))
    moment = time.time() - age
    os.utime(folder / NAME, (moment, moment))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_it_is_held_and_given_back(folder):
    with RunLock(folder, is_new=False):
        assert json.loads((folder / NAME).read_text())["pid"] == os.getpid()
        with pytest.raises(FolderInUse, match=f"in use by another run: process {os.getpid()} on host"):
            RunLock(folder, is_new=False)
        with pytest.raises(FolderInUse):
            require_free(folder)
    assert names(folder) == []
    with pytest.raises(KeyError), RunLock(folder, is_new=False):
        raise KeyError
    assert names(folder) == []


def test_a_new_run_archives_the_folder_of_an_earlier_one(folder):
    (folder / "old.log").touch()
    with RunLock(folder, is_new=True):
        assert names(folder) == [NAME]
        (archived,) = [p for p in folder.parent.iterdir() if p != folder]
        assert names(archived) == ["old.log"]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_living_process_keeps_its_folder(folder, other, is_new):
    lock(folder, other[0])
    with pytest.raises(FolderInUse, match=rf"process {other[0].pid} on host .*give this run another name"):
        RunLock(folder, is_new)
    assert names(folder) == [NAME] and names(folder.parent) == ["run"]


@pytest.mark.parametrize("gone", ["killed", "zombie", "number given again"])
@pytest.mark.parametrize("is_new", [True, False])
def test_the_lock_of_a_process_that_is_gone_is_taken_over(folder, other, log, gone, is_new):
    holder, process = other
    lock(folder, replace(holder, started="1") if gone == "number given again" else holder)
    if gone != "number given again":
        process.kill()
        process.wait() if gone == "killed" else os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    require_free(folder)
    with RunLock(folder, is_new):
        assert json.loads((folder / NAME).read_text())["pid"] == os.getpid()
    assert "was left by a run that is gone (process" in log.text
    assert names(folder) == []


@pytest.fixture
def quick(monkeypatch):
    """Locks of another machine are waited for by tenths of a second."""
    monkeypatch.setattr(run_lock, "RENEWAL", 0.1)
    monkeypatch.setattr(run_lock, "PATIENCE", 1.0)


def elsewhere(**change):
    return replace(Holder.own(), host="elsewhere", machine="another", **change)


def test_another_machines_lock_that_is_not_renewed(folder, quick, log):
    lock(folder, elsewhere())
    start = time.monotonic()
    with RunLock(folder, is_new=False):
        assert 0.5 < time.monotonic() - start < 5
    assert "waiting for up to 1 s" in log.text and "If it is not, delete the file" in log.text
    assert "it is taken over" in log.text
    log.clear()
    lock(folder, elsewhere(), age=100)
    with RunLock(folder, is_new=False):
        pass
    assert "waiting" not in log.text


def test_another_machines_lock_that_is_renewed(folder, quick):
    lock(folder, elsewhere())
    process = multiprocessing.get_context("fork").Process(target=_renew, args=(folder / NAME,))
    process.start()
    with pytest.raises(FolderInUse, match="on host elsewhere.*it was renewed just now"):
        RunLock(folder, is_new=False)
    process.join()


def _renew(file):
    for _ in range(20):
        time.sleep(0.1)
        os.utime(file)


def test_the_holder_renews_its_lock(folder, quick):
    with RunLock(folder, is_new=False):
        os.utime(folder / NAME, (1, 1))
        time.sleep(0.4)
        assert (folder / NAME).stat().st_mtime > 1


@pytest.mark.parametrize(
    ("before", "now", "is_taken"),
    [
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, True),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}, False),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7"}, False),
        ({"TORCHELASTIC_RUN_ID": "a"}, {"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "1"}, True),
        ({"TORCHELASTIC_RUN_ID": "none"}, {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"}, False),
    ],
)
def test_a_job_that_was_started_again_elsewhere(folder, monkeypatch, before, now, is_taken):
    """Its launcher has seen the end of the last attempt, so nothing is waited for."""
    lock(folder, elsewhere(launch=launch_of(before)))
    for key, value in now.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(run_lock, "_wait_for_sign", lambda *_: pytest.fail("waited"))
    if is_taken:
        with RunLock(folder, is_new=False):
            pass
    else:
        with pytest.raises(pytest.fail.Exception, match="waited"):
            RunLock(folder, is_new=False)


def _hold(folder, is_new, barrier, results):
    """Try to take the lock; a holder keeps it until all others have their answer."""
    try:
        barrier.wait(30)
        try:
            with RunLock(folder, is_new):
                barrier.wait(30)
            results.put("held")
        except FolderInUse:
            barrier.wait(30)
            results.put("refused")
    except BaseException as error:
        barrier.abort()
        results.put(repr(error))


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("is_new", [True, False])
def test_of_many_at_the_same_moment_one_holds(folder, stale, is_new):
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        if stale:
            lock(folder, replace(Holder.own(), started="1"))
        barrier, results = context.Barrier(4), context.SimpleQueue()
        run_forked(_hold, [(folder, is_new, barrier, results)] * 4)
        answers = []
        while not results.empty():
            answers.append(results.get())
        assert sorted(answers) == ["held"] + ["refused"] * 3
        assert names(folder) == []


@pytest.mark.parametrize("before", ["given back", "removed as stale"])
def test_a_lock_that_another_has_taken_since_stays(folder, other, monkeypatch, before):
    """A third process takes the folder after this one has seen that its last holder is gone."""
    lock(folder, replace(Holder.own(), started="1"))
    look = run_lock._held_by_other

    def look_and_be_overtaken(*args, **kwargs):
        monkeypatch.setattr(run_lock, "_held_by_other", look)
        if before == "given back":
            (folder / NAME).unlink()
        content = look(*args, **kwargs)
        (folder / NAME).unlink(missing_ok=True)
        lock(folder, other[0])
        return content

    monkeypatch.setattr(run_lock, "_held_by_other", look_and_be_overtaken)
    with pytest.raises(FolderInUse, match=f"in use by another run: process {other[0].pid} on host"):
        RunLock(folder, is_new=False)
    assert json.loads((folder / NAME).read_text())["pid"] == other[0].pid


def test_a_folder_that_was_renamed_and_made_again_is_not_taken(folder, monkeypatch):
    """The new folder is that of the run which has renamed the old one."""
    link = os.link

    def renamed_before(source, target):
        folder.rename(folder.with_name("archived"))
        folder.mkdir()
        link(source, target)

    monkeypatch.setattr(os, "link", renamed_before)
    with pytest.raises(FolderInUse, match="another run has renamed the folder"):
        RunLock(folder, is_new=False)
    assert names(folder) == []


@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_is_said_of_the_folder(folder, monkeypatch, is_new):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_lock.Path, "write_text", full)
    with pytest.raises(
        OSError, match=r"^nothing can be written to the folder .*run: No space left on device$"
    ) as error:
        RunLock(folder, is_new)
    assert is_disk_full(error.value)
    assert names(folder) == []


def test_without_hard_links(folder, monkeypatch):
    """As on FAT."""

    def unsupported(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    with RunLock(folder, is_new=False):
        assert names(folder) == [NAME]
        with pytest.raises(FolderInUse):
            RunLock(folder, is_new=False)
    assert names(folder) == []


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "dangling", "text", "numbers"])
def test_something_else_by_that_name(folder, kind, tmp_path):
    """Neither hung nor a traceback of another kind."""
    file = folder / NAME
    {
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "loop": lambda: file.symlink_to(file),
        "dangling": lambda: file.symlink_to(tmp_path / "nothing"),
        "text": lambda: file.write_text("mine"),
        "numbers": lambda: file.write_text("[1, 2]"),
    }[kind]()
    require_free(folder)
    if kind == "folder":
        with pytest.raises(OSError, match="run.lock is a folder, and a run keeps its lock there"):
            RunLock(folder, is_new=False)
    else:
        with RunLock(folder, is_new=False):
            pass
        assert names(folder) == []


def test_a_run_whose_folder_was_taken_over_ends(folder, quick):
    """A process that was suspended and believed to be gone must not write into the other run's files."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    process = context.Process(target=_hold_long, args=(folder, barrier))
    process.start()
    barrier.wait()
    os.kill(process.pid, signal.SIGSTOP)
    lock(folder, elsewhere())
    os.kill(process.pid, signal.SIGCONT)
    process.join(10)
    assert process.exitcode == 1
    assert names(folder) == [NAME]


def _hold_long(folder, barrier):
    with RunLock(folder, is_new=False):
        barrier.wait()
        time.sleep(30)
