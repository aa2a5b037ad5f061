import multiprocessing
import os
import signal
import threading
import time

import pytest

from basicsr.engine.run.signals import StopSignals, stop_requested


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted(number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals() as signals:
        assert not signals.should_stop()
        assert not stop_requested()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # the same one, passed on by a launcher
        assert wait_until(lambda: signals.requested)
        assert signals.requested == signal.Signals(number).name
        assert signals.should_stop()
        assert stop_requested()
    assert not stop_requested()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_other_signals_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert wait_until(lambda: seen)
            assert not signals.should_stop()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_forked_child_does_not_take_part():
    """Its SIGTERM ends it, and is not taken for its parent's."""
    with StopSignals() as signals:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        time.sleep(0.2)
        os.kill(child.pid, signal.SIGINT)
        time.sleep(0.2)
        assert child.is_alive(), "Ctrl-C is its parent's matter"
        child.terminate()
        child.join(10)
        assert child.exitcode == -signal.SIGTERM
        assert not signals.should_stop()


def test_outside_the_main_thread_signals_are_as_before():
    outcome = []

    def body():
        with StopSignals() as signals:
            outcome.append(signals.should_stop())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert outcome == [False]
