"""DRSformer against its equations in float64, written from the state dict alone, and against its published layout.

The layout was read from the authors' file (github.com/cschenxiang/DRSformer, basicsr/models/archs/DRSformer_arch.py at
8ac1db3); the paper states 33.7M parameters.
"""

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs import build_network
from basicsr.archs.drsformer_arch import DRSformer

from ..goldens.spandrel_reference import draw_weights, image

SMALL = {"dim": 8, "num_blocks": [1, 2, 1, 1], "heads": [1, 2, 2, 4], "ffn_expansion_factor": 2.0}


class ByHand:
    """The network as functions of its state dict."""

    def __init__(self, network: DRSformer, heads: list[int], bias_free: bool) -> None:
        self.state, self.heads, self.bias_free = network.state_dict(), heads, bias_free

    def conv(self, x, key, groups=1, dilation=1):
        weight = self.state[f"{key}.weight"]
        padding = dilation * (weight.shape[-1] - 1) // 2
        bias = self.state.get(f"{key}.bias")
        return F.conv2d(x, weight, bias, padding=padding, groups=groups, dilation=dilation)

    def norm(self, x, key):
        mean, spread = x.mean(1, keepdim=True), (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        weight = self.state[f"{key}.body.weight"][:, None, None]
        if self.bias_free:
            return x / spread * weight
        return (x - mean) / spread * weight + self.state[f"{key}.body.bias"][:, None, None]

    def attention(self, x, key, heads):
        b, c, h, w = x.shape
        qkv = self.conv(self.conv(x, f"{key}.qkv"), f"{key}.qkv_dwconv", groups=3 * c)
        out, size = torch.zeros_like(x), c // heads
        for image_, head in ((i, j) for i in range(b) for j in range(heads)):
            rows = slice(head * size, (head + 1) * size)
            q, k, v = (part[image_, rows].flatten(1) for part in qkv.split(c, dim=1))
            q, k = (part / part.norm(dim=1, keepdim=True) for part in (q, k))
            scores = q @ k.T * self.state[f"{key}.temperature"][head, 0, 0]
            for number, count in enumerate((size // 2, size * 2 // 3, size * 3 // 4, size * 4 // 5), 1):
                for i in range(size):
                    best = sorted(range(size), key=lambda j: -scores[i, j])[:count]
                    weights = scores[i, best].exp() / scores[i, best].exp().sum()
                    part = self.state[f"{key}.attn{number}"] * (weights @ v[best])
                    out[image_, head * size + i] += part.view(h, w)
        return self.conv(out, f"{key}.project_out")

    def feed_forward(self, x, key):
        x = self.conv(x, f"{key}.project_in")
        n = x.shape[1]
        a = self.conv(x, f"{key}.dwconv3x3", groups=n).clamp_min(0)
        b = self.conv(x, f"{key}.dwconv5x5", groups=n).clamp_min(0)
        first = torch.cat([a[:, : n // 2], b[:, : n // 2]], 1)
        second = torch.cat([a[:, n // 2 :], b[:, n // 2 :]], 1)
        first = self.conv(first, f"{key}.dwconv3x3_1", groups=n // 2).clamp_min(0)
        second = self.conv(second, f"{key}.dwconv5x5_1", groups=n // 2).clamp_min(0)
        return self.conv(torch.cat([first, second], 1), f"{key}.project_out")

    def level(self, x, key, level):
        for index in range(SMALL["num_blocks"][level]):
            block = f"{key}.{index}"
            x = x + self.attention(self.norm(x, f"{block}.norm1"), f"{block}.attn", self.heads[level])
            x = x + self.feed_forward(self.norm(x, f"{block}.norm2"), f"{block}.ffn")
        return x

    def experts(self, x, key):
        c = x.shape[1]
        gate, steps = f"{key}.layers.0.ca_fc", f"{key}.layers.1"
        hidden = F.linear(x.mean((2, 3)), self.state[f"{gate}.0.weight"], self.state[f"{gate}.0.bias"]).clamp_min(0)
        logits = F.linear(hidden, self.state[f"{gate}.2.weight"], self.state[f"{gate}.2.bias"])
        weights = logits.view(-1, 4, 8).softmax(-1)
        x = self.conv(x, f"{steps}.preprocess.op.0").clamp_min(0)
        ones = F.pad(torch.ones_like(x), (1, 1, 1, 1))
        for step in range(4):
            parts = []
            for expert in range(8):
                op = f"{steps}._ops.{step}._ops.{expert}.op"
                if expert < 4:
                    y = self.conv(self.conv(x, f"{op}.0", groups=c), f"{op}.1").clamp_min(0)
                    y = self.conv(self.conv(y, f"{op}.3", groups=c), f"{op}.4")
                elif expert < 7:
                    y = self.conv(self.conv(x, f"{op}.0", groups=c, dilation=2), f"{op}.1")
                else:
                    y = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1) / F.avg_pool2d(ones, 3, 1)
                parts.append(y * weights[:, step, expert, None, None, None])
            merged = self.conv(torch.cat(parts, 1), f"{steps}._ops.{step}._out.0").clamp_min(0)
            x = (merged + x).clamp_min(0)
        return x

    def down(self, x, key):
        return F.pixel_unshuffle(self.conv(x, f"{key}.body.0"), 2)

    def up(self, x, key):
        return F.pixel_shuffle(self.conv(x, f"{key}.body.0"), 2)

    def __call__(self, x):
        mixture = self.experts if "refinement.layers.0.ca_fc.0.weight" in self.state else lambda y, _: y
        level1 = self.level(mixture(self.conv(x, "patch_embed.proj"), "encoder_level0"), "encoder_level1", 0)
        level2 = self.level(self.down(level1, "down1_2"), "encoder_level2", 1)
        level3 = self.level(self.down(level2, "down2_3"), "encoder_level3", 2)
        y = self.up(self.level(self.down(level3, "down3_4"), "latent", 3), "up4_3")
        y = self.level(self.conv(torch.cat([y, level3], 1), "reduce_chan_level3"), "decoder_level3", 2)
        y = torch.cat([self.up(y, "up3_2"), level2], 1)
        y = torch.cat(
            [self.up(self.level(self.conv(y, "reduce_chan_level2"), "decoder_level2", 1), "up2_1"), level1], 1
        )
        return self.conv(mixture(self.level(y, "decoder_level1", 0), "refinement"), "output") + x


@pytest.mark.parametrize(
    "options", [{}, {"bias": True, "LayerNorm_type": "BiasFree", "heads": [2, 4, 8, 4]}, {"use_mefc": False}]
)
def test_equals_the_equations(options):
    options = SMALL | options
    network = draw_weights(DRSformer(**options))
    by_hand = ByHand(network, options["heads"], options.get("LayerNorm_type") == "BiasFree")
    x = image((2, 3, 16, 24))
    with torch.no_grad():
        expected = by_hand(x)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-9)
        assert (expected - x).abs().max() > 0.1
        single = network.float()(x.float()).double()
    # Attention keeps the highest scores only: of almost equal ones, another precision may keep another.
    tolerance = {"rtol": 1e-5, "atol": 1e-5 * float(expected.abs().max())}
    assert any(torch.allclose(*pair, **tolerance) for pair in zip(single, expected))


BLOCK = (
    ["temperature", "qkv.weight", "qkv_dwconv.weight", "project_out.weight", "attn1", "attn2", "attn3", "attn4"],
    ["project_in", "dwconv3x3", "dwconv5x5", "dwconv3x3_1", "dwconv5x5_1", "project_out"],
)


def published_keys(mixture: bool) -> list[str]:
    """The keys of the released file, as its constructors name them."""
    keys = ["patch_embed.proj.weight", "output.weight", "reduce_chan_level3.weight", "reduce_chan_level2.weight"]
    keys += [f"{name}.body.0.weight" for name in ("down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1")]
    for name, number in zip(("encoder_level1", "encoder_level2", "encoder_level3", "latent", "decoder_level3",
                             "decoder_level2", "decoder_level1"), (4, 6, 6, 8, 6, 6, 4), strict=True):  # fmt: skip
        for block in (f"{name}.{index}" for index in range(number)):
            keys += [f"{block}.norm{index}.body.{part}" for index in (1, 2) for part in ("weight", "bias")]
            keys += [f"{block}.attn.{part}" for part in BLOCK[0]] + [f"{block}.ffn.{part}.weight" for part in BLOCK[1]]
    for name in ("encoder_level0", "refinement") if mixture else ():
        keys += [f"{name}.layers.0.ca_fc.{index}.{part}" for index in (0, 2) for part in ("weight", "bias")]
        keys += [f"{name}.layers.1.preprocess.op.0.weight"]
        for step in (f"{name}.layers.1._ops.{index}" for index in range(4)):
            keys += [f"{step}._ops.{i}.op.{j}.weight" for i in range(7) for j in ((0, 1, 3, 4) if i < 4 else (0, 1))]
            keys += [f"{step}._out.0.weight"]
    return sorted(keys)


@pytest.mark.parametrize(("mixture", "parameters"), [(True, 33_655_424), (False, 32_610_304)])
def test_published_layout(mixture, parameters):
    with torch.device("meta"):
        network = build_network({"type": "DRSformer", "use_mefc": mixture})
    state = network.state_dict()
    assert sorted(state) == published_keys(mixture)
    assert sum(value.numel() for value in network.parameters()) == parameters
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["latent.7.ffn.dwconv3x3_1.weight"] == (1021, 2, 3, 3)
    assert shapes["latent.7.attn.temperature"] == (8, 1, 1)
    if mixture:
        assert shapes["refinement.layers.1._ops.3._ops.3.op.3.weight"] == (96, 1, 7, 7)
        assert shapes["refinement.layers.1._ops.3._out.0.weight"] == (96, 768, 1, 1)
        assert shapes["encoder_level0.layers.0.ca_fc.0.weight"] == (64, 48)


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        ({"heads": [1, 2, 4]}, "heads"),
        ({"heads": [3, 2, 4, 8]}, "heads"),
        ({"dim": 7}, "dim"),
        ({"dim": 4, "heads": [4, 4, 4, 4]}, "heads"),
        ({"out_channels": 1}, "out_channels"),
        ({"LayerNorm_type": "RMS"}, "LayerNorm_type"),
    ],
)
def test_what_does_not_fit_is_named(opt, words):
    with pytest.raises(ValueError, match=words):
        build_network({"type": "DRSformer", **SMALL, **opt})
