"""SKD's Gaussian kernel: values by hand, gradients, and the warning of saturation."""

import math

import pytest
import torch

from basicsr.distill.gaussian_kernel import GaussianKernel, gaussian_kernel, squared_distance
from basicsr.distill.saturation import SaturationWatch

from .test_feature_term import Maps, Networks


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("mean", [(1 + 4 + 0 + 0 + 9 + 0) / 6, 4.0]),
        ("sum", [14.0, 24.0]),
        ("position", [[2.5, 0.0, 4.5], [4.0, 4.0, 4.0]]),
    ],
)
def test_squared_distances_by_hand(distance, expected):
    x = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]], [[2.0, 2.0], [2.0, 2.0], [2.0, -2.0]]])
    torch.testing.assert_close(squared_distance(x, torch.zeros_like(x), distance), torch.tensor(expected))


def test_the_kernel_by_hand():
    """σ = 2: 1 − exp(−d/8); for d = 8 ln 2 it is 1/2, for d = 0 nothing."""
    squares = torch.tensor([8 * math.log(2), 0.0], dtype=torch.float64)
    assert gaussian_kernel(squares, 2.0).item() == pytest.approx(0.25, rel=1e-12)


def test_a_small_distance_keeps_its_digits():
    assert gaussian_kernel(torch.tensor([1e-12]), 1.0).item() == pytest.approx(0.5e-12, rel=1e-6)


@pytest.mark.parametrize("distance", ["mean", "position", "sum"])
def test_gradcheck(distance):
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: gaussian_kernel(squared_distance(x, y, distance), 0.9), [x])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_distance_beyond_half_precision_is_finite(dtype):
    x = torch.full((1, 2, 2), 300.0, dtype=dtype, requires_grad=True)  # its square is beyond float16
    squares = squared_distance(x, torch.zeros_like(x), "mean")
    assert squares.dtype == torch.float32 and squares.item() == pytest.approx(90000, rel=1e-2)
    value = gaussian_kernel(squares, 300.0)
    value.backward()
    assert value.item() == pytest.approx(1 - math.exp(-0.5), rel=1e-2)
    assert x.grad.isfinite().all() and x.grad.any()


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return {"g": Maps(4), "t": Maps(6), "t_2": Maps(4)}


def build(nets, pairs, **options):
    """The term, set up on the networks, and a step over a batch of two."""
    torch.manual_seed(0)
    term = GaussianKernel(pairs, **options)
    world = Networks(term, **nets)
    return term, world.context(torch.rand(2, 3, 8, 8))


def of(ctx, network, name):
    return ctx.run(network).features[name].detach().double()


def test_a_sum_over_pairs_image_by_image(nets):
    pairs = [{"student": f"body.{i}", "teacher": f"body.{i + 1}", "network": "t_2"} for i in (1, 3)]
    term, ctx = build(nets, pairs, sigma=0.3)
    expected = 0.0
    for i in (1, 3):
        for image in range(2):
            mean = (of(ctx, "g", f"body.{i}")[image] - of(ctx, "t_2", f"body.{i + 1}")[image]).square().mean().item()
            expected += (1 - math.exp(-mean / (2 * 0.3**2))) / 2
    assert term(ctx).item() == pytest.approx(expected, rel=1e-5)


def test_the_adapter_trains_and_the_teacher_does_not(nets):
    term, ctx = build(nets, [["body.1", "body.3"]])
    term(ctx).backward()
    (adapter,) = term.adapters
    assert adapter.weight.shape == (6, 4, 1, 1) and adapter.weight.grad.any()
    assert nets["g"].body[1].weight.grad.any()
    assert all(p.grad is None for p in nets["t"].parameters())
    assert sorted(term.state_dict()) == ["adapters.0.bias", "adapters.0.weight", "saturation.count"]


def test_maps_and_tokens_of_one_size_are_the_same_feature(nets):
    pair = {"student": "body.7", "teacher": "body.7", "network": "t_2"}
    values = []
    for modules in ({}, {"student": "tokens", "teacher": "tokens"}, {"teacher": "tokens"}):
        term, ctx = build(nets, [{**pair, **modules}], distance="position")
        values.append(term(ctx).item())
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_sizes_that_differ(nets):
    with pytest.raises(ValueError, match=r"'down' .* differ in height and width; choose .* or set resize"):
        build(nets, [["down", "body.1"]])
    term, ctx = build(nets, [["down", "body.1"]], resize="teacher")
    assert 0 < term(ctx).item() < 1


def test_equal_features_have_neither_loss_nor_gradient(nets):
    term, ctx = build({"g": nets["g"], "t": nets["g"]}, [["body.1", "body.1"]])
    value = term(ctx)
    value.backward()
    assert value.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in nets["g"].parameters())


# Saturation.


def count(watch, *values):
    watch.add([torch.tensor(v) for v in values], [torch.tensor(4.0)] * len(values))
    assert watch.end_iteration()


def test_a_value_is_reported_once_after_a_hundred_iterations():
    watch = SaturationWatch(["a", "b"])
    reported = []
    for iteration in range(1, 301):
        count(watch, 0.9995, 0.9995 if iteration != 150 else 0.9)
        if iteration % 30 == 0:
            reported += [(iteration, *found) for found in watch.found(30)]
    assert reported == [(120, "a", 2.0), (120, "b", 2.0), (270, "b", 2.0)]


def test_the_lowest_part_of_a_divided_batch_decides():
    watch = SaturationWatch(["a"])
    for part in (0.9999, 0.5, 0.9999):
        watch.add([torch.tensor(part)], [torch.tensor(1.0)])
    watch.end_iteration()
    assert watch.count.item() == 0
    count(watch, 0.9999)
    assert watch.count.item() == 1
    assert not watch.end_iteration(), "an iteration in which the term is not active"
    assert watch.count.item() == 1


def test_the_count_goes_on_after_resuming():
    one, other = SaturationWatch(["a"]), SaturationWatch(["a"])
    for _ in range(99):
        count(one, 1.0)
    other.load_state_dict(one.state_dict())
    count(other, 1.0)
    assert other.found(1) == [("a", 2.0)]


@pytest.mark.parametrize(("sigma", "warned"), [(0.001, True), (100.0, False)])
def test_the_log_says_which_option_to_change(nets, caplog, sigma, warned):
    term, ctx = build(nets, [["body.1", "body.3"]], sigma=sigma)
    term.name = "gk"
    difference = (list(term.matched_features(ctx))[0][0] - of(ctx, "t", "body.3")).square().mean().sqrt().item()

    class Run:
        print_interval = 2

    term.saturation.count.fill_(97)
    for iteration in range(98, 107):
        term(ctx)
        term.after_step(Run, iteration)
    messages = [record.getMessage() for record in caplog.records if "Gaussian" in record.getMessage()]
    assert len(messages) == warned
    for message in messages:
        assert "train.kd_opt.gk: the Gaussian kernel of body.1 ↔ body.3 (feature) has been above 0.999" in message
        assert f"raise sigma, which is 0.001, towards {difference:.2g}," in message


def test_what_has_no_effect_is_refused():
    from basicsr.distill import build_term

    for options in ({"sigma": 0}, {"adapter": "raw"}, {"distance": "max"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            build_term("gk", {"type": "GaussianKernel", "pairs": [["a", "b"]], **options})
