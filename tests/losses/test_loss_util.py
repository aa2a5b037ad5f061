import pytest
import torch

from basicsr.losses import reduce_loss, weight_reduce_loss, weighted_loss

LOSS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])  # (1, 2, 2, 2)


def test_reductions():
    assert torch.equal(reduce_loss(LOSS, "none"), LOSS)
    assert reduce_loss(LOSS, "mean") == 4.5
    assert reduce_loss(LOSS, "sum") == 36


def test_weights():
    per_pixel = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])  # (1, 1, 2, 2)
    assert torch.equal(weight_reduce_loss(LOSS, per_pixel, "none"), LOSS * per_pixel)
    assert weight_reduce_loss(LOSS, per_pixel, "sum") == 2 + 12 + 6 + 24
    assert weight_reduce_loss(LOSS, per_pixel) == (2 + 12 + 6 + 24) / 8
    per_channel = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    assert weight_reduce_loss(LOSS, per_channel) == (1 + 2 + 3 + 4 + 3 * (5 + 6 + 7 + 8)) / 16
    assert weight_reduce_loss(LOSS) == 4.5


def test_no_weight_anywhere_gives_no_loss():
    loss = LOSS.clone().requires_grad_()
    mean = weight_reduce_loss(loss, torch.zeros(1, 1, 2, 2))
    mean.backward()
    assert mean == 0
    assert not loss.grad.any()


def test_decorator_adds_weight_and_reduction():
    @weighted_loss
    def scaled_difference(pred, target, factor=1.0):
        """Its own words."""
        return factor * (pred - target)

    zeros = torch.zeros_like(LOSS)
    assert scaled_difference(LOSS, zeros) == 4.5
    assert scaled_difference(LOSS, zeros, torch.ones(1, 1, 2, 2), reduction="sum", factor=2.0) == 72
    assert scaled_difference.__doc__ == "Its own words."


def test_bad_arguments():
    for weight in (None, torch.ones(1, 1, 2, 2)):
        with pytest.raises(ValueError, match="reduction: average is not supported here; expected none or mean or sum"):
            weight_reduce_loss(LOSS, weight, "average")
    with pytest.raises(ValueError, match=r"weight of the shape \(1, 3, 2, 2\) does not fit a loss .*\(1, 2, 2, 2\)"):
        weight_reduce_loss(LOSS, torch.ones(1, 3, 2, 2))
