"""PerceptualLoss: values by hand and against a loop, where gradients go, files, and a run that uses it."""

import pytest
import torch

from basicsr.losses import build_loss
from basicsr.losses.perceptual_loss import gram_matrix

LAYERS = {"conv1_2": 0.5, "relu2_1": 2.0}


def make(**options):
    torch.manual_seed(0)
    options = {"type": "PerceptualLoss", "layer_weights": LAYERS, "weights": "random", **options}
    return build_loss(options).double()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    x, gt = torch.rand(2, 2, 3, 16, 12, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), gt


def test_gram_matrix_by_hand():
    """Two channels of two pixels, (1, 2) and (3, −1): products 5, 1, 10 over 2·2 numbers."""
    features = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).view(1, 2, 1, 2)
    assert gram_matrix(features).tolist() == [[[1.25, 0.25], [0.25, 2.5]]]


@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_values_equal_a_loop(images, criterion):
    x, gt = images
    loss = make(criterion=criterion, perceptual_weight=3.0, style_weight=7.0)
    own, target = loss.vgg(x), loss.vgg(gt)
    perceptual = style = 0.0
    for name, weight in LAYERS.items():
        a, b = own[name], target[name]
        gram_a, gram_b = (torch.einsum("bchw,bdhw->bcd", f, f) / f[0].numel() for f in (a, b))
        for kind, (one, other) in {"p": (a, b), "s": (gram_a, gram_b)}.items():
            difference = (one - other).flatten()
            value = {
                "l1": difference.abs().sum() / len(difference),
                "l2": (difference**2).sum() / len(difference),
                "fro": (difference**2).sum() ** 0.5,
            }[criterion].item()
            perceptual, style = perceptual + weight * value * (kind == "p"), style + weight * value * (kind == "s")
    values = loss(x, gt)
    assert values[0].item() == pytest.approx(3 * perceptual, rel=1e-10)
    assert values[1].item() == pytest.approx(7 * style, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_features_of_lower_precision_are_compared_in_float32(criterion, dtype):
    loss = make(criterion=criterion, style_weight=1.0)
    own, target = ({name: torch.randn(2, 4, 9, 7).to(dtype) for name in LAYERS} for _ in range(2))
    values = loss.compare(own, target)
    exact = loss.compare(*({name: f[name].float() for name in f} for f in (own, target)))
    assert all(value.dtype is torch.float32 for value in values)
    assert values == exact


@pytest.mark.parametrize(("weights", "present"), [((1, 0), (True, False)), ((0, 1), (False, True))])
def test_a_loss_of_weight_zero_is_left_out(images, weights, present):
    values = make(perceptual_weight=weights[0], style_weight=weights[1])(*images)
    assert tuple(value is not None for value in values) == present


@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_equal_images_give_zero_and_a_finite_gradient(images, criterion):
    x, _ = images
    value, style = make(criterion=criterion, style_weight=1.0)(x, x.detach())
    (value + style).backward()
    assert value.item() == style.item() == 0
    assert x.grad.isfinite().all()


def test_gradients_reach_the_image_alone(images):
    x, gt = images
    gt = gt.clone().requires_grad_()
    loss = make(layer_weights={"conv1_1": 1.0}, criterion="l2", style_weight=1.0)
    small, target = x[:1, :, :4, :4].detach().requires_grad_(), gt[:1, :, :4, :4].detach()
    assert torch.autograd.gradcheck(lambda image: sum(loss(image, target)), [small])
    sum(loss(x, gt)).backward()
    assert x.grad.abs().sum() > 0
    assert gt.grad is None
    assert all(p.grad is None for p in loss.parameters())


def test_weights_come_from_a_file(images, tmp_path):
    source = make()
    torch.save(source.vgg.state_dict(), tmp_path / "vgg.pth")
    torch.manual_seed(5)
    loss = build_loss(
        {"type": "PerceptualLoss", "layer_weights": LAYERS, "weights": str(tmp_path / "vgg.pth")}
    ).double()
    assert loss(*images)[0].item() == source(*images)[0].item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "l3"}, "must be l1, l2 or fro, not 'l3'"),
        ({"perceptual_weight": 0}, "there is nothing to compute"),
        ({"layer_weights": {"conv9_9": 1.0}}, "conv9_9"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_it_is_where_basicsr_has_it():
    from basicsr.losses.basic_loss import PerceptualLoss

    assert isinstance(make(), PerceptualLoss)


def test_images_of_different_shapes_are_refused(images):
    with pytest.raises(ValueError, match="tensors of one shape"):
        make()(images[0], images[1][:1])
