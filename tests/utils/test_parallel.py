"""parallel_map: order, failures, errors."""

import time
from functools import partial

import pytest

from basicsr.utils.parallel import parallel_map


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    # Earlier items take longer, and there are more of them than are in work at a time.
    items = [0.02 - 0.001 * i for i in range(20)]
    assert [item for item, _ in parallel_map(time.sleep, items, workers)] == items


@pytest.mark.parametrize("workers", [1, 2])
def test_items_that_cannot_be_done_do_not_stop_the_others(workers):
    outcomes = dict(parallel_map(int, ["1", "x", "3"], workers))
    assert (outcomes["1"], outcomes["3"]) == (1, 3)
    assert isinstance(outcomes["x"], ValueError) and "'x'" in str(outcomes["x"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_in_the_function_is_raised(workers):
    with pytest.raises(TypeError):
        list(parallel_map(partial(int, base=3), [1, 2], workers))
