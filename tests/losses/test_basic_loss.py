import math

import pytest
import torch
from torch.autograd import gradcheck

from basicsr.losses import CharbonnierLoss, L1Loss, MSELoss, PSNRLoss, WeightedTVLoss

PRED = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
TARGET = torch.tensor([[[[1.0, 0.0], [6.0, 0.0]]]])  # differences 0, 2, -3, 4
WEIGHT = torch.tensor([[[[5.0, 1.0], [1.0, 0.0]]]])

PIXEL_LOSSES = [L1Loss, MSELoss, CharbonnierLoss]


def double_pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pred, target = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return pred.requires_grad_(), target


@pytest.mark.parametrize(("loss", "terms"), [(L1Loss, [0, 2, 3, 4]), (MSELoss, [0, 4, 9, 16])])
def test_l1_and_mse(loss, terms):
    assert loss(reduction="none")(PRED, TARGET).flatten().tolist() == terms
    assert loss(reduction="sum")(PRED, TARGET) == sum(terms)
    assert loss()(PRED, TARGET) == sum(terms) / 4
    assert loss(loss_weight=0.5)(PRED, TARGET) == sum(terms) / 8
    assert loss()(PRED, TARGET, weight=WEIGHT).item() == pytest.approx((terms[1] + terms[2]) / 7)


def test_charbonnier():
    loss = CharbonnierLoss(reduction="none", eps=9.0)(PRED, TARGET)
    torch.testing.assert_close(loss.flatten(), torch.tensor([3.0, math.sqrt(13), math.sqrt(18), 5.0]))
    assert CharbonnierLoss(loss_weight=3.0, reduction="sum")(PRED, TARGET).item() == pytest.approx(27, rel=1e-6)
    weighted = CharbonnierLoss(eps=9.0)(PRED, TARGET, weight=WEIGHT)
    assert weighted.item() == pytest.approx((5 * 3 + math.sqrt(13) + math.sqrt(18)) / 7, rel=1e-6)


def test_charbonnier_of_equal_images_has_finite_gradients():
    pred = torch.rand(1, 3, 4, 4).requires_grad_()
    loss = CharbonnierLoss()(pred, pred.detach())
    loss.backward()
    assert loss.item() == pytest.approx(1e-6)
    assert not pred.grad.any()


def test_total_variation():
    # Vertical differences 2, 2; horizontal differences 1, 1.
    assert WeightedTVLoss(reduction="sum")(PRED) == 6
    assert WeightedTVLoss(loss_weight=2.0)(PRED) == 2 * (2 + 1)
    weighted = WeightedTVLoss(reduction="sum")(PRED, weight=WEIGHT)
    assert weighted == (5 * 2 + 1 * 2) + (5 * 1 + 1 * 1)
    assert WeightedTVLoss()(torch.full((2, 3, 4, 5), 0.3)) == 0


def test_psnr_of_each_image_is_averaged():
    target = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    pred = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)]).double()
    assert PSNRLoss()(pred, target).item() == pytest.approx(-(20 + 40) / 2, abs=1e-3)
    assert PSNRLoss(loss_weight=0.5)(pred, target).item() == pytest.approx(-15, abs=1e-3)
    assert PSNRLoss()(target, target).item() == pytest.approx(-80)


def test_psnr_of_luma():
    # A step of 0.1 in green alone is a step of 12.8553 of 255 in Y.
    target = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    pred = target.clone()
    pred[:, 1] = 0.1
    expected = 10 * math.log10((12.8553 / 255) ** 2 + 1e-8)
    assert PSNRLoss(toY=True)(pred, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_gradients_of_pixel_losses(loss, reduction):
    pred, target = double_pair(2, 3, 3, 2)
    weight = torch.linspace(0, 1, 12, dtype=torch.float64).view(2, 1, 3, 2)
    criterion = loss(loss_weight=0.7, reduction=reduction)
    assert gradcheck(lambda x: criterion(x, target), pred)
    assert gradcheck(lambda x: criterion(x, target, weight=weight), pred)


@pytest.mark.parametrize("to_y", [False, True])
def test_gradients_of_psnr(to_y):
    pred, target = double_pair(2, 3, 3, 2)
    assert gradcheck(lambda x: PSNRLoss(toY=to_y)(x, target), pred)


def test_gradients_of_total_variation():
    pred, weight = double_pair(1, 2, 3, 3)
    assert gradcheck(lambda x: WeightedTVLoss()(x, weight), pred)
    assert gradcheck(lambda x: WeightedTVLoss(reduction="sum")(x), pred)


@pytest.mark.parametrize("loss", [*PIXEL_LOSSES, PSNRLoss])
def test_half_precision_predictions_meet_float_targets(loss):
    pred = torch.rand(1, 3, 4, 4).bfloat16().requires_grad_()
    value = loss()(pred, torch.rand(1, 3, 4, 4))
    value.backward()
    assert value.dtype == torch.float32
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("loss", [*PIXEL_LOSSES, PSNRLoss])
def test_shapes_must_be_equal(loss):
    with pytest.raises(ValueError, match=r"a prediction \(1, 3, 4, 4\) with a target \(1, 1, 4, 4\)"):
        loss()(torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("loss", "allowed"),
    [
        *((loss, "none or mean or sum") for loss in PIXEL_LOSSES),
        (WeightedTVLoss, "mean or sum"),
        (PSNRLoss, "mean"),
    ],
)
def test_unknown_reductions(loss, allowed):
    with pytest.raises(ValueError, match=f"reduction: average is not supported here; expected {allowed}$"):
        loss(reduction="average")


def test_reductions_that_a_loss_cannot_do():
    with pytest.raises(ValueError, match="reduction: none is not supported here; expected mean or sum"):
        WeightedTVLoss(reduction="none")
    with pytest.raises(ValueError, match="reduction: sum is not supported here; expected mean"):
        PSNRLoss(reduction="sum")


def test_images_without_neighbours_or_batch():
    with pytest.raises(ValueError, match=r"needs 2×2 pixels or more, not the shape \(1, 3, 1, 4\)"):
        WeightedTVLoss()(torch.rand(1, 3, 1, 4))
    with pytest.raises(ValueError, match=r"batches \(B, C, H, W\), not the shape \(3, 4, 4\)"):
        PSNRLoss()(torch.rand(3, 4, 4), torch.rand(3, 4, 4))
