"""Networks that keep the size: images of any size, the window block on images that are not square, and errors."""

import pytest
import torch
import torch.nn.functional as F

from basicsr.archs import build_network
from basicsr.archs.lewin_block import LeWinTransformerBlock
from basicsr.archs.size_requirement import size_requirement_of
from basicsr.engine.restore.restorer import Restorer

from ..goldens.spandrel_reference import NAF, REST, UFORMER, draw_weights, image

WINDOWS = UFORMER | {"img_size": 64, "modulator": True}
DRS = {"type": "DRSformer", "dim": 8, "num_blocks": [1] * 4, "heads": [1, 2, 2, 4]}
FFDNET = {"type": "FFDNet", "in_nc": 3, "out_nc": 3, "nc": 8, "nb": 3}
NETWORKS = [  # options, what both sides must be multiples of, and the padding inside
    (NAF, 4, "constant"),
    (NAF | {"type": "NAFNetLocal", "train_size": [1, 3, 8, 8]}, 4, "constant"),
    (REST, 8, "reflect"),
    (DRS, 8, "reflect"),
    (WINDOWS, 64, "reflect"),
    (FFDNET, 2, "replicate"),
    ({"type": "DnCNN", "in_nc": 3, "out_nc": 3, "nc": 8, "nb": 3}, 1, "none"),
    ({"type": "PReNet", "recurrent_iter": 2}, 1, "none"),
]
IDS = [opt["type"] for opt, *_ in NETWORKS]


@pytest.mark.parametrize(("opt", "multiple", "mode"), NETWORKS, ids=IDS)
def test_any_size_is_padded(opt, multiple, mode):
    network = draw_weights(build_network(opt))
    assert size_requirement_of(network).multiple_of == multiple
    x = image((1, 3, 69, 43))
    down, right = -69 % multiple, -43 % multiple
    with torch.no_grad():
        own = network(x)
        assert own.shape == x.shape
        if multiple > 1:
            padded = network(F.pad(x, (0, right, 0, down), mode=mode))[..., :69, :43]
            torch.testing.assert_close(own, padded, rtol=0, atol=1e-12)
            reflected = network(F.pad(x, (0, right, 0, down), mode="reflect"))[..., :69, :43]
            torch.testing.assert_close(Restorer(network)(x), reflected, rtol=0, atol=1e-12)
        else:
            assert torch.equal(Restorer(network)(x), own)


@pytest.mark.parametrize(("opt", "multiple", "mode"), NETWORKS, ids=IDS)
def test_every_parameter_gets_a_gradient(opt, multiple, mode):
    network = draw_weights(build_network(opt)).train()
    network(image((2, 3, 64, 64))).square().sum().backward()
    still = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert still == []


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("opt", "multiple", "mode"), NETWORKS, ids=IDS)
def test_bfloat16_autocast_in_either_layout(opt, multiple, mode, layout):
    network = draw_weights(build_network(opt)).float().to(memory_format=layout)
    x = image((1, 3, 64, 64)).float().contiguous(memory_format=layout)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x)
    # The release's Restormer is off by 0.033 to 0.039 with such weights; rounding decides which channels are kept.
    tolerance = 0.25 if opt["type"] == "DRSformer" else 0.04
    assert (rough.float() - exact).abs().mean() < tolerance * exact.abs().mean()


def block_by_hand(block, x, shift):
    """One window at a time, on the image as it is: a window's tokens are those that lie in it after the shift."""
    side, heads = block.win_size, block.attn.num_heads
    height, width, dim = x.shape[1:]
    state = block.state_dict()
    tokens = F.layer_norm(x, (dim,), state["norm1.weight"], state["norm1.bias"])
    out = torch.zeros_like(x)
    for b in range(len(x)):
        for top in range(0, height, side):
            for left in range(0, width, side):
                place = [((top + i + shift), (left + j + shift)) for i in range(side) for j in range(side)]
                region = [(y >= height, z >= width) for y, z in place]  # what the shift has brought around
                place = [(y % height, z % width) for y, z in place]
                own = torch.stack([tokens[b, y, z] for y, z in place]) + state["modulator.weight"]
                q = F.linear(own, state["attn.qkv.to_q.weight"], state["attn.qkv.to_q.bias"])
                k, v = F.linear(own, state["attn.qkv.to_kv.weight"], state["attn.qkv.to_kv.bias"]).chunk(2, 1)
                merged = torch.empty_like(q)
                for head in range(heads):
                    part = slice(head * dim // heads, (head + 1) * dim // heads)
                    scores = q[:, part] @ k[:, part].T * (dim // heads) ** -0.5
                    for m in range(side * side):
                        for n in range(side * side):
                            dy, dz = m // side - n // side + side - 1, m % side - n % side + side - 1
                            table = state["attn.relative_position_bias_table"]
                            scores[m, n] += table[dy * (2 * side - 1) + dz, head]
                            scores[m, n] += 0 if region[m] == region[n] else -100
                    merged[:, part] = scores.softmax(1) @ v[:, part]
                merged = F.linear(merged, state["attn.proj.weight"], state["attn.proj.bias"])
                for (y, z), value in zip(place, merged):
                    out[b, y, z] = value
    x = x + out
    y = F.layer_norm(x, (dim,), state["norm2.weight"], state["norm2.bias"])
    y = F.gelu(F.linear(y, state["mlp.linear1.0.weight"], state["mlp.linear1.0.bias"])).permute(0, 3, 1, 2)
    y = F.gelu(F.conv2d(y, state["mlp.dwconv.0.weight"], state["mlp.dwconv.0.bias"], padding=1, groups=y.shape[1]))
    return x + F.linear(y.permute(0, 2, 3, 1), state["mlp.linear2.0.weight"], state["mlp.linear2.0.bias"])


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_the_window_block_equals_its_equations_on_an_oblong_image(shift):
    """The release's code takes square images only."""
    block = LeWinTransformerBlock(6, 2, 4, shift, 2.0, True, None, 0.0, 0.0, 0.0, "leff", True)
    draw_weights(block)
    x = image((2, 8, 12, 6)) - 0.5
    with torch.no_grad():
        expected = block_by_hand(block, x, shift)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(block.float()(x.float()).double(), expected, rtol=1e-5, atol=1e-5)


def test_uformer_recomputes_its_blocks_to_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        network = draw_weights(build_network(WINDOWS | {"use_checkpoint": recompute, "drop_path_rate": 0.0})).train()
        network(image((1, 3, 64, 64))).square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_uformer_drops_paths_in_the_published_order():
    depths = [1, 2, 2, 3, 2, 3, 2, 2, 1]
    network = build_network(UFORMER | {"depths": depths, "drop_path_rate": 0.7})
    rates = {
        name: getattr(module.drop_path, "drop_prob", 0.0)
        for name, module in network.named_modules()
        if isinstance(module, LeWinTransformerBlock)
    }
    steps = [0.1 * i for i in range(8)]
    assert [rates[f"encoderlayer_{i}.blocks.{j}"] for i in range(4) for j in range(depths[i])] == pytest.approx(steps)
    assert [rates[f"conv.blocks.{j}"] for j in range(2)] == pytest.approx([0.7, 0.7])
    decoder = [rates[f"decoderlayer_{i}.blocks.{j}"] for i in range(4) for j in range(depths[5 + i])]
    assert decoder == pytest.approx(steps[::-1])


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        (NAF | {"dec_blk_nums": [1]}, ["enc_blk_nums", "dec_blk_nums"]),
        (REST | {"heads": [1, 2]}, ["num_blocks", "heads"]),
        (REST | {"heads": [3, 2, 2, 4]}, ["heads", "3"]),
        (REST | {"dim": 9}, ["dim", "even"]),
        (REST | {"inp_channels": 6}, ["dual_pixel_task", "inp_channels"]),
        (REST | {"LayerNorm_type": "bias"}, ["LayerNorm_type", "BiasFree"]),
        (UFORMER | {"depths": [2, 2]}, ["depths", "9"]),
        (UFORMER | {"num_heads": [3, 1, 2, 2, 2, 4, 2, 1, 2]}, ["num_heads", "stage 1"]),
        (UFORMER | {"img_size": 100}, ["img_size", "16"]),
        (UFORMER | {"img_size": 16, "modulator": True}, ["modulator", "img_size"]),
        (UFORMER | {"in_chans": 1}, ["in_chans", "dd_in"]),
        (UFORMER | {"token_projection": "conv"}, ["token_projection", "linear"]),
        (UFORMER | {"token_mlp": "fastleff"}, ["token_mlp", "leff"]),
        (UFORMER | {"depths": [1, 1, 1, 1, 1, 2, 1, 1, 1]}, ["depths", "decoder"]),
    ],
)
def test_what_does_not_fit_is_named(opt, words):
    with pytest.raises(ValueError) as caught:
        build_network(opt)
    assert all(word in str(caught.value) for word in words), str(caught.value)
