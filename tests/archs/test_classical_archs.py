"""DnCNN, FFDNet and PReNet against their equations in float64, written from the state dict alone."""

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs import build_network
from basicsr.archs.dncnn_arch import DnCNN
from basicsr.archs.ffdnet_arch import FFDNet
from basicsr.archs.prenet_arch import PReNet
from basicsr.distill.taps import FeatureTaps

from ..goldens.spandrel_reference import draw_weights, image

COLOUR = {"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 4}


def ffdnet_by_hand(state, x, sigma):
    """Each pixel of a 2×2 cell becomes a channel, and a plane of the noise level follows."""
    height, width = x.shape[2:]
    x = torch.cat([x, x[:, :, -1:]], 2) if height % 2 else x
    x = torch.cat([x, x[:, :, :, -1:]], 3) if width % 2 else x
    planes = [x[:, c, i::2, j::2] for c in range(x.shape[1]) for i in (0, 1) for j in (0, 1)]
    planes.append(torch.full_like(planes[0], 1) * sigma)
    y = torch.stack(planes, 1)
    keys = sorted((key for key in state if key.endswith("weight")), key=lambda key: int(key.split(".")[1]))
    for number, key in enumerate(keys):
        y = F.conv2d(y, state[key], state[key.replace("weight", "bias")], padding=1)
        y = y.clamp_min(0) if number < len(keys) - 1 else y
    out = torch.empty_like(x)
    for plane, (c, i, j) in enumerate((c, i, j) for c in range(x.shape[1]) for i in (0, 1) for j in (0, 1)):
        out[:, c, i::2, j::2] = y[:, plane]
    return out[:, :, :height, :width]


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (8, 5), (7, 5)])
def test_ffdnet_equals_its_equations(size):
    network = draw_weights(FFDNet(**COLOUR, sigma=51))
    x = image((2, 3, *size))
    expected = ffdnet_by_hand(network.state_dict(), x, 0.2)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(network.float()(x.float()).double(), expected, rtol=1e-5, atol=1e-5)


def test_ffdnet_takes_a_noise_level_for_each_image():
    network = draw_weights(FFDNet(**COLOUR, sigma=51))
    x = image((2, 3, 8, 6))
    sigma = torch.tensor([0.1, 0.4]).double().view(2, 1, 1, 1)
    with torch.no_grad():
        out = network(x, sigma)
        for index in range(2):
            expected = ffdnet_by_hand(network.state_dict(), x[index : index + 1], sigma[index, 0, 0, 0])
            torch.testing.assert_close(out[index : index + 1], expected, rtol=0, atol=1e-9)
        assert torch.equal(network(x, torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64)), network(x))


@pytest.mark.parametrize("sigma", [-1, 255.5, float("nan")])
def test_an_impossible_noise_level_is_refused(sigma):
    with pytest.raises(ValueError, match=r"`sigma` is a noise level in \[0, 255\]"):
        build_network({"type": "FFDNet", "sigma": sigma})


def test_the_noise_level_is_not_in_the_state():
    assert "sigma" not in " ".join(FFDNet().state_dict())


def prenet_by_hand(state, rainy, stages):
    def conv(x, key):
        return F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)

    estimate, h, c = rainy, rainy.new_zeros(1), rainy.new_zeros(1)
    h = h.expand(len(rainy), 32, *rainy.shape[2:])
    for _ in range(stages):
        x = conv(torch.cat([rainy, estimate], 1), "conv0.0").clamp_min(0)
        x = torch.cat([x, h], 1)
        i, f, o = (conv(x, f"conv_{gate}.0").sigmoid() for gate in "ifo")
        c = f * c + i * conv(x, "conv_g.0").tanh()
        h = x = o * c.tanh()
        for block in range(1, 6):
            y = conv(x, f"res_conv{block}.0").clamp_min(0)
            x = (conv(y, f"res_conv{block}.2").clamp_min(0) + x).clamp_min(0)
        estimate = conv(x, "conv.0") + rainy
    return estimate


@pytest.mark.parametrize("stages", [1, 3, 6])
def test_prenet_equals_its_equations(stages):
    network = draw_weights(PReNet(stages))
    x = image((2, 3, 9, 11))
    with torch.no_grad():
        expected = prenet_by_hand(network.state_dict(), x, stages)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(network.float()(x.float()).double(), expected, rtol=1e-5, atol=1e-5)
        assert (expected - prenet_by_hand(network.double().state_dict(), x, stages + 1)).abs().max() > 1e-3


def test_a_tap_inside_the_recurrence_names_the_stage():
    """A stage's estimate is the output of ``conv``, added to the rainy image; the stage before has the one before."""
    network, rainy = draw_weights(PReNet(3)), image((2, 3, 9, 11))
    taps = FeatureTaps(network, "network_t")
    for tap in ("conv@1", "conv@last", "conv@mean"):
        taps.add(tap)
    with torch.no_grad(), taps.recording() as features:
        network(rainy)
        first, second, third = (prenet_by_hand(network.state_dict(), rainy, stages) - rainy for stages in (1, 2, 3))
    expected = {"conv@1": second, "conv@last": third, "conv@mean": (first + second + third) / 3}
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-9)


def test_a_plain_tap_inside_the_recurrence_is_refused_and_one_of_a_single_stage_is_not():
    """A module that runs once for each stage has no single output."""
    network = PReNet(2)
    taps = FeatureTaps(network, "network_t")
    taps.add("res_conv5")
    with pytest.raises(ValueError, match="'res_conv5' runs more than once in a forward pass"), taps.recording():
        network(torch.rand(1, 3, 4, 4))
    single = PReNet(1)
    taps = FeatureTaps(single, "network_t")
    taps.add("res_conv5")
    with taps.recording() as features:
        single(torch.rand(1, 3, 4, 4))
    assert features["res_conv5"].shape == (1, 32, 4, 4)


def test_dncnn_without_batch_norm_is_dncnn_with_it_merged():
    """The released weights are those after merging."""
    network = draw_weights(DnCNN(nc=8, nb=4))
    merged = DnCNN(nc=8, nb=4, act_mode="R").double()
    convolutions = [layer for layer in network.model if isinstance(layer, torch.nn.Conv2d)]
    norms = [None, *(layer for layer in network.model if isinstance(layer, torch.nn.BatchNorm2d)), None]
    with torch.no_grad():
        for target, conv, norm in zip(merged.model[::2], convolutions, norms, strict=True):
            factor = 1 if norm is None else norm.weight / (norm.running_var + 1e-4).sqrt()
            shift = 0 if norm is None else norm.bias - norm.running_mean * factor
            target.weight.copy_(conv.weight * torch.as_tensor(factor).view(-1, 1, 1, 1))
            target.bias.copy_(conv.bias * factor + shift)
        x = image((1, 1, 8, 9))
        torch.testing.assert_close(merged(x), network(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("opt", "file", "parameters"),
    [
        ({"type": "DnCNN", "act_mode": "R"}, "DnCNN_gray_sigma25.pth", 555_137),
        ({"type": "FFDNet", "in_nc": 3, "out_nc": 3, "nc": 96, "nb": 12}, "FFDNet_color.pth", 852_108),
        *(({"type": "PReNet"}, f"PReNet_{name}.pth", 168_963) for name in ("Rain100H", "Rain100L", "Rain1400")),
    ],
)
def test_the_published_weights_load_strictly(shared_data, opt, file, parameters):
    with torch.device("meta"):
        network = build_network(opt)
    assert sum(value.numel() for value in network.parameters()) == parameters
    weights = torch.load(shared_data / "weights" / file, map_location="cpu", weights_only=True)
    network.load_state_dict(weights, strict=True, assign=True)


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        ({"type": "DnCNN", "out_nc": 3}, "out_nc"),
        ({"type": "DnCNN", "act_mode": "L"}, "act_mode"),
        ({"type": "FFDNet", "nb": 1}, "nb"),
        ({"type": "PReNet", "iterations": 6}, "iterations"),
    ],
)
def test_what_does_not_fit_is_named(opt, words):
    with pytest.raises(ValueError, match=words):
        build_network(opt)
