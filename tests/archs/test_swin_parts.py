"""SwinIR's parts as plug-ins import them: BasicSR's constructors, and what each part computes."""

import inspect

import pytest
import torch
from torch import nn

from basicsr.archs import swinir_arch

SIZES = "dim input_resolution num_heads window_size shift_size"
LAYER = "dim input_resolution depth num_heads window_size"
BLOCK_OPTIONS = "mlp_ratio qkv_bias qk_scale drop attn_drop drop_path"
SIGNATURES = {  # of BasicSR 1.4.2
    "DropPath": "drop_prob",
    "Mlp": "in_features hidden_features out_features act_layer drop",
    "WindowAttention": "dim window_size num_heads qkv_bias qk_scale attn_drop proj_drop",
    "SwinTransformerBlock": f"{SIZES} {BLOCK_OPTIONS} act_layer norm_layer",
    "PatchMerging": "input_resolution dim norm_layer",
    "BasicLayer": f"{LAYER} {BLOCK_OPTIONS} norm_layer downsample use_checkpoint",
    "RSTB": f"{LAYER} {BLOCK_OPTIONS} norm_layer downsample use_checkpoint img_size patch_size resi_connection",
    "PatchEmbed": "img_size patch_size in_chans embed_dim norm_layer",
    "PatchUnEmbed": "img_size patch_size in_chans embed_dim norm_layer",
    "UpsampleOneStep": "scale num_feat num_out_ch input_resolution",
    "window_partition": "x window_size",
    "window_reverse": "windows window_size h w",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_parameters_are_basicsrs_in_its_order(name):
    assert " ".join(inspect.signature(getattr(swinir_arch, name)).parameters) == SIGNATURES[name]


def test_windows_are_the_blocks_of_the_image_in_row_order():
    image = torch.randn(2, 4, 6, 3)
    windows = swinir_arch.window_partition(image, 2)
    expected = [image[b, y : y + 2, x : x + 2] for b in range(2) for y in (0, 2) for x in (0, 2, 4)]
    torch.testing.assert_close(windows, torch.stack(expected), rtol=0, atol=0)
    torch.testing.assert_close(swinir_arch.window_reverse(windows, 2, 4, 6), image, rtol=0, atol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_takes_windows_that_are_cut_already(masked):
    height, width, heads, dim, count = 2, 3, 2, 8, 6
    attention = swinir_arch.WindowAttention(dim, (height, width), heads, qk_scale=0.7)
    nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(count, height * width, dim)
    mask = torch.randn(3, height * width, height * width) if masked else None
    out = attention(x, mask=mask)

    q, k, v = (attention.qkv(x)[..., part * dim : (part + 1) * dim] for part in range(3))
    expected = torch.empty_like(x)
    for window in range(count):
        for head in range(heads):
            own = slice(head * dim // heads, (head + 1) * dim // heads)
            scores = 0.7 * q[window, :, own] @ k[window, :, own].T
            for i in range(height * width):
                for j in range(height * width):
                    down, right = i // width - j // width, i % width - j % width
                    row = (down + height - 1) * (2 * width - 1) + right + width - 1
                    scores[i, j] += attention.relative_position_bias_table[row, head]
            if masked:
                scores = scores + mask[window % 3]
            expected[window, :, own] = scores.softmax(-1) @ v[window, :, own]
    torch.testing.assert_close(out, attention.proj(expected))


def test_attention_of_an_image_is_that_of_its_windows():
    attention = swinir_arch.WindowAttention(8, (4, 4), 2)
    image = torch.randn(2, 8, 12, 8)
    windows = swinir_arch.window_partition(image, 4)
    out = attention(windows.view(-1, 16, 8)).view(-1, 4, 4, 8)
    torch.testing.assert_close(attention(image), swinir_arch.window_reverse(out, 4, 8, 12))


def test_patch_merging_takes_the_four_neighbours_column_by_column():
    merging = swinir_arch.PatchMerging((4, 6), 3)
    tokens = torch.randn(2, 24, 3)
    image = tokens.view(2, 4, 6, 3)
    four = [image[:, y::2, x::2] for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))]
    expected = merging.reduction(merging.norm(torch.cat(four, dim=-1).view(2, 6, 12)))
    torch.testing.assert_close(merging(tokens), expected)
    with pytest.raises(ValueError, match="even sides"):
        swinir_arch.PatchMerging((3, 8), 3)(tokens)


def test_a_residual_group_is_its_blocks_a_convolution_and_a_skip_connection():
    group = swinir_arch.RSTB(8, (8, 8), 2, 2, 4, img_size=8, patch_size=1).eval()
    tokens = torch.randn(2, 64, 8)
    deep = tokens
    for block in group.residual_group.blocks:
        deep = block(deep, (8, 8))
    image = deep.transpose(1, 2).reshape(2, 8, 8, 8)
    expected = tokens + group.conv(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(group(tokens, (8, 8)), expected)
    assert [block.shift_size for block in group.residual_group.blocks] == [0, 2]
    names = {name.removeprefix("residual_group.blocks.1.") for name in group.state_dict() if "blocks.1." in name}
    assert {"attn_mask", "attn.relative_position_index", "mlp.fc1.weight"} <= names


def test_a_layer_ends_with_what_halves_the_resolution():
    layer = swinir_arch.BasicLayer(8, (8, 8), 1, 2, 4, downsample=swinir_arch.PatchMerging)
    assert layer(torch.randn(1, 64, 8), (8, 8)).shape == (1, 16, 16)


def test_an_image_no_larger_than_the_window_makes_the_window_as_small():
    block = swinir_arch.SwinTransformerBlock(8, (4, 4), 2, window_size=7, shift_size=3)
    assert (block.window_size, block.shift_size) == (4, 0)
    with pytest.raises(ValueError, match="shift_size"):
        swinir_arch.SwinTransformerBlock(8, (16, 16), 2, window_size=4, shift_size=4)


def test_defaults_of_the_small_parts():
    mlp = swinir_arch.Mlp(6)
    assert (mlp.fc1.out_features, mlp.fc2.out_features, type(mlp.act)) == (6, 6, nn.GELU)
    assert swinir_arch.Mlp(6, 5, 4, nn.ReLU)(torch.randn(2, 6)).shape == (2, 4)
    drop = swinir_arch.DropPath().train()
    x = torch.randn(2, 3)
    assert drop(x) is x
    up = swinir_arch.UpsampleOneStep(3, 4, 2)
    assert up(torch.randn(1, 4, 5, 5)).shape == (1, 2, 15, 15)
    assert list(up.state_dict()) == ["0.weight", "0.bias"]
