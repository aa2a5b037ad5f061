import pytest

from basicsr.engine.run.resume import resume_position


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


@pytest.mark.parametrize(("stream", "expected"), [("train_s", 20), ("train_t", 150)])
def test_each_of_several_streams_has_a_position(stream, expected):
    streams = {"train_s": {"epoch": 1, "position": 40}, "train_t": {"epoch": 0, "position": 400}}
    state = {"sampler": {"position": 40, "streams": streams}, "rng": [{}, {}]}
    assert resume_position(state, 4, epoch_length=150, stream=stream) == expected
