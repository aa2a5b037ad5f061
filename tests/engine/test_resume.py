import pytest

from basicsr.engine.resume import resume_position


@pytest.mark.parametrize(
    ("saved_ranks", "ranks", "position", "expected"),
    [
        (2, 2, 30, 30),
        (2, 1, 30, 60),
        (1, 4, 30, 7),  # 28 of the 30 are not seen again; two are
        (4, 1, 50, 150),  # more than an epoch of this run has
    ],
)
def test_the_position_counts_the_samples_of_all_ranks(saved_ranks, ranks, position, expected):
    state = {"sampler": {"position": position}, "rng": [{}] * saved_ranks}
    assert resume_position(state, ranks, epoch_length=150) == expected


def test_a_state_of_basicsr_has_no_position():
    assert resume_position({"epoch": 3, "iter": 100}, 2, epoch_length=150) == 0
