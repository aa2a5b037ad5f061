import pytest
import torch

from basicsr.engine.compute import timing
from basicsr.engine.compute.timing import StepTimer


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


def test_a_step_is_split_and_inner_parts_count_for_themselves(clock):
    timer = StepTimer(torch.device("cpu"))
    clock.now += 50  # start-up is no waiting for data
    timer.batch_arrived()
    timer.start(measure=False)
    timer.end()
    clock.now += 2
    timer.batch_arrived()
    timer.start(measure=True)
    with timer.part("terms"):
        clock.now += 1
        with timer.part("teacher"):
            clock.now += 4
        clock.now += 2
    clock.now += 1
    timer.end()
    assert timer.seconds == {"data": 2, "other": 1, "terms": 3, "teacher": 4}
    assert timer.summary() == "10.000 s: data 20 %, other 10 %, terms 30 %, teacher 40 %"
    assert timer.loader_share() == 0.2


def test_what_comes_between_steps_is_no_waiting_for_data(clock):
    timer = StepTimer(torch.device("cpu"))
    timer.end()
    timer.interrupted()
    clock.now += 30
    timer.batch_arrived()
    timer.start(measure=True)
    clock.now += 1
    timer.end()
    assert timer.seconds == {"other": 1}


def test_other_steps_are_not_measured(clock):
    timer = StepTimer(torch.device("cpu"))
    timer.start(measure=False)
    with timer.part("student"):
        clock.now += 1
    timer.end()
    assert timer.summary() == ""
    assert timer.loader_share() == 0.0
