"""LCR against a loop over images, and the augmentation that it undoes."""

import pytest
import torch

from basicsr.distill.augmentation import InvertibleAugmentation

from .helpers import distil, how_turned, network, small_batch, take_step, turned_back


@pytest.mark.parametrize("index", range(16))
def test_augmentation_is_undone(index):
    chosen = torch.tensor([[bool(index >> k & 1), True] for k in range(4)])
    augmentation = InvertibleAugmentation(chosen)
    x = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(augmentation.undo(augmentation.apply(x)), x)


def test_augmentation_by_hand():
    """All four on [[0, .1], [.2, .3]]: invert → flip rows → flip columns → transpose."""
    x = torch.tensor([[0.0, 0.1], [0.2, 0.3]]).view(1, 1, 2, 2)
    out = InvertibleAugmentation(torch.ones(4, 1, dtype=torch.bool)).apply(x)
    torch.testing.assert_close(out.view(2, 2), torch.tensor([[0.7, 0.9], [0.8, 1.0]]))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_augmentation_draws_each_operation_for_each_image(probability):
    torch.manual_seed(0)
    chosen = InvertibleAugmentation.draw(2000, probability, torch.device("cpu")).chosen
    assert chosen.shape == (4, 2000)
    for operation in chosen.double():
        assert operation.mean().item() == pytest.approx(probability, abs=0.05)
    pairs = torch.corrcoef(chosen.double()) if 0 < probability < 1 else torch.eye(4)
    assert (pairs - torch.eye(4)).abs().max() < 0.1, "independently of each other"


@pytest.mark.parametrize("seed", range(4))
def test_value_and_one_teacher_pass(seed):
    batch = small_batch()
    distillation = distil({"ts": {"type": "LogitsKD"}, "lcr": {"type": "LCR", "prob": 0.5}})
    teacher = network(distillation, "t")
    torch.manual_seed(seed)
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    assert teacher.passes == [4], "the input and its view in one pass"
    (seen,) = teacher.seen
    assert torch.equal(seen[:2], batch.lq)
    expected = 0.0
    for image, view, output in zip(batch.lq, seen[2:], batch.output.detach()):
        chosen = how_turned(image, view)
        target = turned_back(teacher(view[None])[0].detach(), chosen)
        expected += (output - target).abs().mean().item() / 2
    assert losses["l_lcr"].item() == pytest.approx(expected, rel=1e-9)


def test_by_hand_on_an_image_of_one_value():
    """T(x) = x² + 0.3 x + 0.1; of the operations only 1 − x shows: |0.5 − (1 − T(0.8))| = |0.5 − 0.02|."""
    lq, output = (torch.full((2, 3, side, side), value, dtype=torch.float64) for side, value in ((16, 0.2), (32, 0.5)))
    _, losses = take_step(distil({"lcr": {"type": "LCR", "prob": 1.0}}), lq, output=output)
    assert losses["l_lcr"].item() == pytest.approx(0.48, rel=1e-6)


def test_views_follow_the_random_numbers():
    """Which operations are used is drawn as (operation, image), so that a resumed run sees the same views."""
    batch = small_batch()
    distillation = distil({"lcr": {"type": "LCR", "prob": 0.5}})
    torch.manual_seed(2)
    take_step(distillation, batch.lq, output=batch.output)
    torch.manual_seed(2)
    chosen = torch.rand(4, 2) < 0.5
    (seen,) = network(distillation, "t").seen
    assert [how_turned(image, view) for image, view in zip(batch.lq, seen)] == chosen.t().tolist()


def test_oblong_patches_are_refused():
    distillation = distil({"lcr": {"type": "LCR"}}, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"must be square; they are \(4, 6\)"):
        take_step(distillation, torch.rand(1, 3, 4, 6))
