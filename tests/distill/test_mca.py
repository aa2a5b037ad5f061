"""SKD's cross-net attention against its formulas, written out in float64 with the whole matrices."""

import math

import pytest
import torch

from basicsr.archs.nafnet_arch import NAFNet
from basicsr.archs.restormer_arch import Restormer
from basicsr.distill.mca import MCA, channel_attention, spatial_attention

from .test_feature_term import Maps, Networks

SIGMA, LAMBDA, ALPHA = 0.4, 0.2, 0.7


def feature(channels=3, positions=5, seed=0, images=2):
    """(B, C, HW), as the paper writes it."""
    return torch.randn(images, channels, positions, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(scores, axis):
    weights = (scores - scores.max()).exp()
    return weights / weights.sum(axis, keepdim=True)


def by_formula(s, t, temperature, normalize, axis):
    """``S_fc`` and ``S_ft`` of one image, (C, HW) each."""

    def unit(x, along):
        return x / x.square().sum(along, keepdim=True).sqrt() if normalize else x

    channel = softmax(unit(t, 1) @ unit(s, 1).T / temperature, 1 if axis == "keys" else 0) @ s
    spatial = s @ softmax(unit(t, 0).T @ unit(s, 0) / temperature, 0 if axis == "keys" else 1)
    return channel, spatial


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("axis", ["keys", "queries"])
def test_attention_is_that_of_the_formula(normalize, axis):
    s, t = feature(), feature(seed=1)
    for attend, which in ((channel_attention, 0), (spatial_attention, 1)):
        found = attend(s.mT, t.mT, LAMBDA, normalize, axis).mT
        expected = torch.stack([by_formula(*pair, LAMBDA, normalize, axis)[which] for pair in zip(s, t)])
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attend", [channel_attention, spatial_attention])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("axis", ["keys", "queries"])
def test_gradcheck(attend, normalize, axis):
    s, t = feature().mT.requires_grad_(), feature(seed=1).mT
    assert torch.autograd.gradcheck(lambda s: attend(s, t, LAMBDA, normalize, axis), [s])


def test_attention_by_hand():
    """Two channels at one position, plain products. S = (1, 2), T = (ln 2, 0), λ = 1. Channels: the scores of the first
    are ln 2 and 2 ln 2, so its weights are 2/6 and 4/6; those of the second are equal."""
    s = torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    t = torch.tensor([[[math.log(2), 0.0]]], dtype=torch.float64)
    assert channel_attention(s, t, 1.0, False).flatten().tolist() == pytest.approx([(1 + 2 * 2) / 3, 1.5], rel=1e-12)
    assert torch.equal(spatial_attention(s, t, 1.0, False), s), "one position attends to itself"


def test_a_low_temperature_finds_each_vector_in_itself():
    """With cosines the highest score of a vector is that with itself, so equal features are left as they are."""
    s = feature(4, 6).mT
    for attend in (channel_attention, spatial_attention):
        torch.testing.assert_close(attend(s, s, 1e-6), s)


@pytest.mark.parametrize("attend", [channel_attention, spatial_attention])
@pytest.mark.parametrize(("channels", "positions"), [(1, 6), (4, 1), (1, 1)])
def test_one_channel_or_one_position(attend, channels, positions):
    s, t = feature(channels, positions, images=1).mT.requires_grad_(), feature(channels, positions, 1, 1).mT
    mixed = attend(s, t, LAMBDA)
    mixed.square().sum().backward()
    assert mixed.shape == s.shape and s.grad.isfinite().all()
    if (channels if attend is channel_attention else positions) == 1:
        torch.testing.assert_close(mixed, s)


@pytest.mark.parametrize("attend", [channel_attention, spatial_attention])
@pytest.mark.parametrize("zero", ["student", "teacher", "a channel", "a position"])
def test_zeros_have_finite_gradients(attend, zero):
    s, t = feature().float().mT, feature(seed=1).float().mT
    {"student": s, "teacher": t, "a channel": s[:, :, 0], "a position": s[:, 0]}[zero].zero_()
    s.requires_grad_()
    attend(s, t, LAMBDA).sub(t).square().mean().backward()
    assert s.grad.isfinite().all()
    assert s.grad.abs().max() < 10


def loss_by_formula(s, t, parts, normalize=True, axis="keys", distance="mean"):
    """The loss of one image."""

    def kernel(x):
        squares = (x - t).square()
        squares = squares.mean(0) if distance == "position" else squares.mean()
        return (1 - (-squares / (2 * SIGMA**2)).exp()).mean().item()

    channel, spatial = by_formula(s, t, LAMBDA, normalize, axis)
    return kernel(s) + ALPHA * sum(kernel({"channel": channel, "spatial": spatial}[part]) for part in parts)


def build(networks, pairs, patch=(8, 8), **options):
    torch.manual_seed(0)
    term = MCA(pairs, sigma=SIGMA, temperature=LAMBDA, attention_weight=ALPHA, **options)
    world = Networks(term, patch=patch, **networks)
    return term, world.context(torch.rand(2, 3, *patch))


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return {"g": Maps(4), "t": Maps(4), "t_2": Maps(6)}


@pytest.mark.parametrize(
    ("options", "parts", "formula"),
    [
        ({}, ["channel", "spatial"], {}),
        ({"attention": "channel"}, ["channel"], {}),
        ({"attention": "spatial"}, ["spatial"], {}),
        ({"normalize": False}, ["channel", "spatial"], {"normalize": False}),
        ({"softmax_axis": "queries"}, ["channel", "spatial"], {"axis": "queries"}),
        ({"distance": "position"}, ["channel", "spatial"], {"distance": "position"}),
    ],
)
@pytest.mark.parametrize("modules", [("body.1", "body.3"), ("tokens", "tokens")])
def test_the_loss_is_that_of_the_formula(nets, options, parts, formula, modules):
    term, ctx = build(nets, [list(modules), ["body.2", "body.2"]], patch=(6, 8), **options)
    expected = 0.0
    for own, other in (modules, ("body.2", "body.2")):
        s, t = (ctx.run(n).features[name].detach().double() for n, name in (("g", own), ("t", other)))
        s, t = (x.flatten(2) if x.dim() == 4 else x.mT for x in (s, t))
        expected += sum(loss_by_formula(*pair, parts, **formula) for pair in zip(s, t)) / 2
    assert term(ctx).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_the_student_and_the_adapter_alone(nets):
    term, ctx = build(nets, [{"student": "body.1", "teacher": "body.3", "network": "t_2"}])
    term(ctx).backward()
    assert nets["g"].body[1].weight.grad.any() and term.adapters[0].weight.grad.any()
    assert all(p.grad is None for p in nets["t_2"].parameters())
    assert term.saturation.count.shape == (3,)


def test_under_autocast_the_kernels_are_computed_in_float32(nets):
    pairs = [{"student": "body.1", "teacher": "body.3", "network": "t_2"}]
    term, ctx = build(nets, pairs)
    expected = term(ctx)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            value = term(ctx)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.item(), rel=2e-2), "the adapter alone is rounded"


def test_a_resized_side(nets):
    term, ctx = build(nets, [["down", "body.1"]], resize="student")
    term(ctx).backward()
    assert nets["g"].down.weight.grad.any()


def test_a_patch_that_one_network_pads(nets):
    """Trained on 8×8, met with a batch for which the student's feature is of another size."""
    term, ctx = build(nets, [["body.1", "body.1"]])
    passed = ctx.run("g")
    passed.features["body.1"] = passed.features["body.1"][..., :6]
    with pytest.raises(ValueError, match=r"agree .* and not for this batch: \(2, 4, 8, 6\)"):
        term(ctx)


def test_networks_that_pad_inside():
    """Restormer pads 20 to 24, NAFNet of one level does not; 24 is right for both."""
    torch.manual_seed(0)
    nets = {
        "g": NAFNet(width=4, enc_blk_nums=[1], middle_blk_num=1, dec_blk_nums=[1]),
        "t": Restormer(dim=4, num_blocks=[1] * 4, heads=[1] * 4, num_refinement_blocks=1),
    }
    pairs = [["downs.0", "encoder_level2"]]
    with pytest.raises(ValueError, match=r"downs.0' \(1, 8, 10, 10\) .* \(1, 8, 12, 12\) .* that neither network pads"):
        build(nets, pairs, patch=(20, 20))
    term, ctx = build(nets, pairs, patch=(24, 24))
    assert 0 < term(ctx).item() < 3
