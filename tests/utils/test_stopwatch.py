import threading

import pytest
import torch

from basicsr.utils.stopwatch import ROUNDS, time_each


def test_computations_take_turns_and_the_first_round_is_not_counted():
    calls = []
    seconds = time_each(lambda: {name: lambda name=name: calls.append(name) for name in ("a", "b")})
    assert calls == ["a", "b"] * (ROUNDS + 1)
    assert set(seconds) == {"a", "b"}
    assert all(value >= 0 for value in seconds.values())


def test_nothing_of_the_calling_thread_holds_inside():
    seen = {}

    def look():
        seen["autocast"] = torch.is_autocast_enabled("cpu")
        seen["grad"] = torch.is_grad_enabled()
        seen["inference"] = torch.is_inference_mode_enabled()
        seen["thread"] = threading.current_thread()

    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        time_each(lambda: {"look": look})
    assert (seen["autocast"], seen["grad"], seen["inference"]) == (False, True, False)
    assert seen["thread"] is not threading.current_thread()


def test_operations_inside_are_not_counted_outside():
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.ones(4, 4)
    with FlopCounterMode(display=False) as counter:
        time_each(lambda: {"product": lambda: x @ x})
    assert counter.get_total_flops() == 0


def test_as_many_threads_as_outside():
    seen = []
    time_each(lambda: {"look": lambda: seen.append(torch.get_num_threads())})
    assert set(seen) == {torch.get_num_threads()}


@pytest.mark.parametrize("where", ["make", "compute"])
def test_a_failure_is_raised(where):
    def fail():
        raise RuntimeError("not implemented")

    with pytest.raises(RuntimeError, match="not implemented"):
        time_each(fail if where == "make" else lambda: {"a": fail})
