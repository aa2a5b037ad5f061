"""SwinIR against a plain float64 re-derivation without rolls, masks or batching of windows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from basicsr.archs import build_network
from basicsr.archs.swin_block import SwinTransformerBlock

SMALL = {"type": "SwinIR", "img_size": 16, "embed_dim": 12, "depths": [2, 3], "num_heads": [2, 3], "window_size": 4}
SMALL |= {"mlp_ratio": 2, "upscale": 1}


def small(seed=0, **changes):
    torch.manual_seed(seed)
    network = build_network(SMALL | changes)
    for parameter in network.parameters():  # fresh biases are 0 and gains 1: move everything
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def derived_block(weights, x, heads, window, shift):
    """One Swin Transformer block on (B, H, W, C). A shifted window that crosses the border of the image is cut there,
    so every token attends to those of its own, perhaps smaller, window: no roll, no mask."""

    def linear(name, tokens):
        return tokens @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def norm(name, tokens):
        centred = tokens - tokens.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    batch, height, width, dim = x.shape
    table = weights["attn.relative_position_bias_table"].view(2 * window - 1, 2 * window - 1, heads)
    q, k, v = linear("attn.qkv", norm("norm1", x)).view(batch, height, width, 3, heads, dim // heads).unbind(3)
    out = torch.zeros_like(q)
    for top in range(shift - window if shift else 0, height, window):
        for left in range(shift - window if shift else 0, width, window):
            ys, xs = range(max(top, 0), min(top + window, height)), range(max(left, 0), min(left + window, width))
            cell = [(y, x) for y in ys for x in xs]
            for y, x_ in cell:
                scores = [
                    (q[:, y, x_] * k[:, b, a]).sum(-1) * (dim // heads) ** -0.5
                    + table[y - b + window - 1, x_ - a + window - 1]
                    for b, a in cell
                ]
                share = torch.stack(scores).exp() / torch.stack(scores).exp().sum(0)
                out[:, y, x_] = sum(s[..., None] * v[:, b, a] for s, (b, a) in zip(share, cell, strict=True))
    x = x + linear("attn.proj", out.reshape(batch, height, width, dim))
    hidden = linear("mlp.fc1", norm("norm2", x))
    return x + linear("mlp.fc2", 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)))


@pytest.mark.parametrize("form", ["matmul", "sdpa"])
@pytest.mark.parametrize(
    ("height", "width", "window", "shift"), [(8, 12, 4, 0), (8, 12, 4, 2), (5, 5, 5, 2), (9, 6, 3, 1)]
)
def test_a_block_equals_its_derivation(height, width, window, shift, form, monkeypatch):
    monkeypatch.setattr("basicsr.archs.attention.fastest_form", lambda *_: form)
    torch.manual_seed(0)
    block = SwinTransformerBlock(12, (2 * window, 2 * window), 3, window, shift, mlp_ratio=2).double()
    for parameter in block.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    x = torch.randn(2, height, width, 12, dtype=torch.float64)
    with torch.no_grad():
        out = block(x.view(2, -1, 12), (height, width)).view_as(x)
        expected = derived_block(block.state_dict(), x, 3, window, shift)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 3)])
def test_the_network_equals_its_derivation_at_any_size(size):
    network = small().double().eval()
    weights = network.state_dict()
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    down, right = -size[0] % 4, -size[1] % 4
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, down), (0, right)), mode="reflect")

    def conv(name, x):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def norm(name, x):
        return F.layer_norm(x, (12,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = torch.from_numpy(padded) - network.mean
    shallow = conv("conv_first", x)
    tokens = norm("patch_embed.norm", shallow.permute(0, 2, 3, 1))
    for layer, (depth, heads) in enumerate([(2, 2), (3, 3)]):
        before = tokens
        for index in range(depth):
            prefix = f"layers.{layer}.residual_group.blocks.{index}."
            block = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            tokens = derived_block(block, tokens, heads, 4, 2 if index % 2 else 0)
        tokens = conv(f"layers.{layer}.conv", tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + before
    deep = conv("conv_after_body", norm("norm", tokens).permute(0, 3, 1, 2)) + shallow
    expected = (x + conv("conv_last", deep) + network.mean)[..., : size[0], : size[1]]
    with torch.no_grad():
        torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "head",
    [
        {"upsampler": "pixelshuffle", "upscale": 4},
        {"upsampler": "pixelshuffle", "upscale": 3, "img_range": 255.0},
        {"upsampler": "pixelshuffledirect", "upscale": 2},
        {"upsampler": "nearest+conv", "upscale": 4, "resi_connection": "3conv"},
        {"upsampler": "nearest+conv", "upscale": 2},
        {"upsampler": None, "in_chans": 1, "patch_norm": False, "qkv_bias": False},
        {"upsampler": "", "drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2},
        {"upsampler": "", "use_checkpoint": True},
    ],
)
def test_every_variant_upscales_odd_sizes_and_trains_all_its_weights(head):
    network = small(**head)
    channels, scale = head.get("in_chans", 3), head.get("upscale", 1)
    out = network(torch.rand(2, channels, 7, 10))
    assert out.shape == (2, channels, 7 * scale, 10 * scale)
    out.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_recomputation_changes_no_gradient():
    network = small(drop_path_rate=0.0)
    x = torch.rand(1, 3, 8, 8)
    gradients = []
    for recompute in (False, True):
        for layer in network.layers:
            layer.residual_group.use_checkpoint = recompute
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_changed_weights_take_effect_whichever_way_they_are_changed():
    network = small().eval()
    x = torch.rand(1, 3, 8, 8)
    table = network.layers[0].residual_group.blocks[0].attn.relative_position_bias_table
    with torch.no_grad():
        before = network(x)
        table.data.mul_(3)  # as an EMA may do: invisible to the parameter's version counter
        after = network(x)
        assert not torch.equal(before, after)
        other = small(seed=1).eval()
        network.load_state_dict(other.state_dict())
        assert torch.equal(network(x), other(x))


def test_a_position_embedding_fixes_the_size():
    network = small(ape=True)
    assert network(torch.rand(1, 3, 16, 15)).shape == (1, 3, 16, 15)
    with pytest.raises(ValueError, match=r"`ape`.*\(16, 16\).*\(8, 16\)"):
        network(torch.rand(1, 3, 8, 16))


def test_a_checkpoint_fits_whatever_its_img_size():
    small_patches, large_patches = small(seed=0), small(seed=1, img_size=32)
    saved = small_patches.state_dict()
    mask_key = "layers.1.residual_group.blocks.1.attn_mask"
    assert saved[mask_key].shape == (16, 16, 16)
    assert large_patches.state_dict()[mask_key].shape == (64, 16, 16)
    large_patches.load_state_dict(saved, strict=True)
    assert mask_key in saved
    x = torch.rand(1, 3, 12, 8)
    with torch.no_grad():
        assert torch.equal(small_patches.eval()(x), large_patches.eval()(x))
    without_masks = {key: value for key, value in saved.items() if not key.endswith("attn_mask")}
    large_patches.load_state_dict(without_masks, strict=True)
    with pytest.raises(RuntimeError, match="attn_mask"):  # an unshifted network has no place for one
        small(img_size=4).load_state_dict(saved, strict=True)


def test_patches_no_larger_than_the_window_shrink_it_and_disable_the_shift():
    network = small(img_size=3)
    assert network.window_size == 3
    assert all(block.shift_size == 0 for layer in network.layers for block in layer.residual_group.blocks)
    assert network(torch.rand(1, 3, 7, 4)).shape == (1, 3, 7, 4)


def test_autocast_stays_close_and_keeps_the_residual_stream_in_float32():
    network = small(upsampler="pixelshuffle", upscale=2).eval()
    dtypes = []
    network.layers[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x)
        half = network.bfloat16()(x.bfloat16())
    assert dtypes == [torch.float32, torch.float32, torch.bfloat16]
    assert (out - exact).abs().max() < 0.02
    assert (half - exact).abs().max() < 0.05


def test_feature_taps_are_tensors():
    network = small()
    shapes = {}
    for name in ("layers.0", "layers.1.residual_group.blocks.2", "layers.0.residual_group", "conv_after_body"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: shapes.__setitem__(name, tuple(output.shape))
        )
    network(torch.rand(2, 3, 8, 12))
    assert shapes.pop("conv_after_body") == (2, 12, 8, 12)
    assert set(shapes.values()) == {(2, 8 * 12, 12)}
