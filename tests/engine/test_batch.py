"""The batch of one or several training sets: what is joined, which rows belong to what, and how it is divided."""

import pytest
import torch

from basicsr.engine.batch import Batch, domain_of

CPU = torch.device("cpu")


def numbered(start, count, *shape):
    """``count`` samples that are full of ``start``, ``start + 1`` …"""
    values = torch.arange(start, start + count, dtype=torch.float32)
    return values.view(-1, *(1 for _ in shape)).expand(count, *shape).clone()


def samples(tensor):
    """The number that fills each sample."""
    return [sample.unique().item() for sample in tensor]


@pytest.fixture
def two_sets():
    """Four pairs, and two inputs without a ground truth."""
    return {
        "train_s": {"lq": numbered(0, 4, 3, 2, 2), "gt": numbered(10, 4, 3, 4, 4), "path": ["a", "b", "c", "d"]},
        "train_t": {"lq": numbered(4, 2, 3, 2, 2), "path": ["e", "f"], "prompt": numbered(20, 2, 5)},
    }


def test_one_set_stays_as_it_is():
    lq, gt = numbered(0, 3, 1, 2, 2), numbered(5, 3, 1, 2, 2)
    batch = Batch.of({"lq": lq, "gt": gt, "path": ["a", "b", "c"], "scale": 2}, CPU)
    assert batch.rows == {"train": slice(0, 3)}
    assert list(batch) == ["lq", "gt", "path", "scale"] and len(batch) == 4
    assert batch["lq"] is lq and batch["gt"] is gt
    assert batch["path"] == ["a", "b", "c"] and batch["scale"] == 2
    assert "mask" not in batch and batch.get("mask") is None
    with pytest.raises(KeyError):
        batch["mask"]


def test_sets_are_joined_row_by_row(two_sets):
    batch = Batch.of(two_sets, CPU)
    assert batch.rows == {"s": slice(0, 4), "t": slice(4, 6)}
    assert samples(batch["lq"]) == [0, 1, 2, 3, 4, 5]
    assert samples(batch["lq"][batch.rows["t"]]) == [4, 5]
    assert batch["path"] == ["a", "b", "c", "d", "e", "f"]


def test_a_key_of_one_set_has_that_set_s_rows(two_sets):
    batch = Batch.of(two_sets, CPU)
    assert samples(batch["gt"]) == [10, 11, 12, 13] and batch.rows_of("gt") == slice(0, 4)
    assert samples(batch["prompt"]) == [20, 21] and batch.rows_of("prompt") == slice(4, 6)
    assert batch.rows_of("lq") == slice(0, 6)


def test_selecting_the_rows_that_a_key_has_values_for(two_sets):
    batch = Batch.of(two_sets, CPU)
    output = numbered(30, 6, 3, 4, 4)
    assert samples(batch.select(output, "gt")) == [30, 31, 32, 33]
    assert samples(batch.select(output, "prompt")) == [34, 35]
    assert batch.select(output, "lq") is output, "not copied where it is the whole"


def test_scattered_rows():
    """The first and the last of three sets have a ground truth."""
    sets = {
        "train_a": {"lq": numbered(0, 1, 2), "gt": numbered(10, 1, 2)},
        "train_b": {"lq": numbered(1, 3, 2)},
        "train_c": {"lq": numbered(4, 2, 2), "gt": numbered(11, 2, 2)},
    }
    batch = Batch.of(sets, CPU)
    assert batch.rows == {"a": slice(0, 1), "b": slice(1, 4), "c": slice(4, 6)}
    assert batch.rows_of("gt").tolist() == [0, 4, 5]
    assert samples(batch.select(numbered(30, 6, 2), "gt")) == [30, 34, 35]
    assert samples(batch["gt"]) == [10, 11, 12]


def test_gradients_pass_a_selection(two_sets):
    batch = Batch.of(two_sets, CPU)
    output = numbered(30, 6, 3, 4, 4).requires_grad_()
    batch.select(output, "prompt").sum().backward()
    assert samples(output.grad) == [0, 0, 0, 0, 1, 1]


def test_values_that_are_no_tensors_of_samples():
    """What cannot be joined is kept by set, in their order."""
    sets = {"train_s": {"lq": numbered(0, 2, 1), "factor": 2}, "train_t": {"lq": numbered(2, 1, 1), "factor": 3}}
    assert Batch.of(sets, CPU)["factor"] == [2, 3]


def test_shapes_that_differ_between_sets_are_refused(two_sets):
    two_sets["train_t"]["lq"] = numbered(4, 2, 3, 2, 3)
    message = (
        r"training sets' 'lq' are joined .* train_s gives \(3, 2, 2\), train_t gives \(3, 2, 3\); use crops of one size"
    )
    with pytest.raises(ValueError, match=message):
        Batch.of(two_sets, CPU)


def test_parts_have_their_share_of_every_set(two_sets):
    first, second = Batch.of(two_sets, CPU).chunks(2)
    assert first.rows == second.rows == {"s": slice(0, 2), "t": slice(2, 3)}
    assert samples(first["lq"]) == [0, 1, 4] and samples(second["lq"]) == [2, 3, 5]
    assert samples(first["gt"]) == [10, 11] and samples(second["gt"]) == [12, 13]
    assert first.rows_of("gt") == second.rows_of("gt") == slice(0, 2)
    assert first["path"] == ["a", "b", "e"] and second["path"] == ["c", "d", "f"]
    assert samples(first["prompt"]) == [20] and samples(second["prompt"]) == [21]


def test_a_single_part_is_the_batch(two_sets):
    batch = Batch.of(two_sets, CPU)
    assert batch.chunks(1) == [batch]


def test_what_the_whole_batch_shares_is_not_divided():
    kernel, sigma = torch.rand(3, 3), torch.tensor(1.5)
    batch = Batch.of({"lq": numbered(0, 4, 1, 2, 2), "kernel": kernel, "sigma": sigma, "name": "four"}, CPU)
    for part in batch.chunks(2):
        assert part["kernel"] is kernel and part["sigma"] is sigma and part["name"] == "four"


def test_a_set_that_cannot_be_divided_is_refused(two_sets):
    with pytest.raises(ValueError, match=r"a batch of 2 samples \(t\) cannot be divided into 4 equal parts"):
        Batch.of(two_sets, CPU).chunks(4)
    with pytest.raises(ValueError, match=r"a batch of 4 samples \(s\) cannot be divided into 3 equal parts"):
        Batch.of(two_sets, CPU).chunks(3)


def test_replacing_values_of_a_single_set(two_sets):
    batch = Batch.of({"lq": numbered(0, 2, 1), "gt": numbered(5, 2, 1)}, CPU)
    changed = batch.replaced(lq=numbered(7, 2, 1))
    assert samples(changed["lq"]) == [7, 8] and samples(changed["gt"]) == [5, 6]
    assert samples(batch["lq"]) == [0, 1]
    with pytest.raises(ValueError, match="a batch of the domains s, t is made by Batch.of alone"):
        Batch.of(two_sets, CPU).replaced(lq=numbered(0, 6, 1))


def test_nested_tensors_are_moved_and_others_left():
    meta = torch.device("meta")
    batch = Batch.of({"lq": torch.zeros(2, 1), "more": {"mask": torch.zeros(2, 1), "name": "x"}}, meta)
    assert batch["lq"].is_meta and batch["more"]["mask"].is_meta and batch["more"]["name"] == "x"


@pytest.mark.parametrize(("stream", "domain"), [("train", "train"), ("train_s", "s"), ("train_real_t", "real_t")])
def test_the_domain_of_a_section(stream, domain):
    assert domain_of(stream) == domain


def nested(start, count):
    """A batch as ``default_collate`` makes it of samples with a section and a pair of numbers."""
    return {
        "lq": numbered(start, count, 3, 2, 2),
        "kernel": {"blur": numbered(start, count, 5), "names": [f"k{i}" for i in range(start, start + count)]},
        "size": [numbered(start, count), numbered(100 + start, count)],
    }


def test_tensors_within_sections_and_pairs_are_divided():
    """Also where a pair has as many items as the batch has samples."""
    for count in (2, 4):
        parts = Batch.of(nested(0, count), CPU).chunks(2)
        for index, part in enumerate(parts):
            expected = list(range(index * count // 2, (index + 1) * count // 2))
            assert samples(part["lq"]) == samples(part["kernel"]["blur"]) == expected
            assert part["kernel"]["names"] == [f"k{i}" for i in expected]
            assert part["size"][0].tolist() == expected
            assert part["size"][1].tolist() == [100 + i for i in expected]


def test_tensors_within_sections_and_pairs_are_joined():
    batch = Batch.of({"train_s": nested(0, 2), "train_t": nested(2, 4)}, CPU)
    assert samples(batch["kernel"]["blur"]) == [0, 1, 2, 3, 4, 5]
    assert batch["kernel"]["names"] == [f"k{i}" for i in range(6)]
    assert [values.tolist() for values in batch["size"]] == [[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]]
    second = batch.chunks(2)[1]
    assert samples(second["kernel"]["blur"]) == samples(second["lq"]) == [1, 4, 5]
