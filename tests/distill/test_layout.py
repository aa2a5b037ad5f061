import pytest
import torch

from basicsr.distill.layout import FeatureLayout, find_layout


def no_larger_patch():
    raise AssertionError("a larger patch is asked for where the shape is not ambiguous")


def find(shape, layout="auto", patch=(8, 8), larger=None):
    return find_layout(layout, "network_g 'x'", shape, patch, (lambda: larger) if larger else no_larger_patch)


@pytest.mark.parametrize(
    ("shape", "patch", "kind", "channels", "is_map", "positions"),
    [
        ((1, 16, 8, 8), (8, 8), "nchw", 16, True, (8, 8)),
        ((1, 8, 8, 16), (8, 8), "nhwc", 16, True, (8, 8)),
        ((1, 16, 4, 6), (8, 12), "nchw", 16, True, (4, 6)),
        ((1, 4, 6, 16), (8, 12), "nhwc", 16, True, (4, 6)),
        ((1, 6, 16, 24), (16, 24), "nchw", 6, True, (16, 24)),
        ((1, 16, 1, 1), (8, 8), "nchw", 16, True, (1, 1)),
        ((1, 1, 1, 16), (8, 8), "nhwc", 16, True, (1, 1)),
        ((1, 64, 16), (8, 8), "tokens", 16, False, (64,)),
        ((4, 16, 12), (8, 8), "tokens", 12, False, (4, 16)),
        ((4, 4, 4, 12), (8, 8), "nhwc", 12, False, (4, 16)),
        ((4, 12, 4, 4), (8, 12), "nchw", 12, False, (4, 16)),
        ((1, 32), (8, 8), "tokens", 32, False, (1,)),
    ],
)
def test_auto(shape, patch, kind, channels, is_map, positions):
    found = find(shape, patch=patch)
    assert (found.kind, found.channels, found.is_map, found.positions) == (kind, channels, is_map, positions)


@pytest.mark.parametrize(
    ("shape", "larger", "patch", "kind"),
    [
        ((1, 8, 8, 8), (1, 8, 16, 16), (8, 8), "nchw"),
        ((1, 8, 8, 8), (1, 16, 16, 8), (8, 8), "nhwc"),
        ((1, 48, 48, 64), (1, 48, 96, 128), (48, 64), "nchw"),  # the first two are equal, the last two have the ratio
        ((1, 5, 6, 16), (1, 9, 12, 16), (8, 12), "nhwc"),  # padded: no two have the ratio
    ],
)
def test_a_larger_patch_decides_what_is_ambiguous(shape, larger, patch, kind):
    assert find(shape, patch=patch, larger=larger).kind == kind


@pytest.mark.parametrize("larger", [(4, 4, 4, 4), (1, 8, 8, 8)])
def test_what_cannot_be_told_is_asked_for(larger):
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 4\), is \(B, C, H, W\) or \(B, H, W, C\) .*; set layout"):
        find((1, 4, 4, 4), larger=larger)


def test_a_network_of_one_size_cannot_tell():
    def refuse():
        raise ValueError("it has a position embedding")

    with pytest.raises(ValueError, match=r"is ambiguous; set layout \(it has a position embedding\)"):
        find_layout("auto", "network_g 'x'", (1, 4, 4, 4), (8, 8), refuse)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((1, 4, 9, 8), "nchw", None),
        ((1, 4, 9, 8), "nhwc", None),
        ((1, 4, 9, 8), "tokens", None),
        ((1, 2, 4, 9, 8), "tokens", None),
        ((1, 64, 8), "nchw", "layout: nchw does not fit network_g 'x', which gives"),
        ((1, 64, 8), "nhwc", "layout: nhwc does not fit"),
        ((1,), "tokens", "layout: tokens does not fit"),
        ((1, 2, 4, 9, 8), "auto", r"gives \(1, 2, 4, 9, 8\); expected a map"),
    ],
)
def test_a_layout_that_the_options_name(shape, layout, message):
    if message is None:
        assert find(shape, layout).kind == layout
    else:
        with pytest.raises(ValueError, match=message):
            find(shape, layout)


def test_canonical_forms():
    """Element by element; ``value`` is unique for each image, window, row, column and channel."""

    def value(image, window, row, column, channel):
        return image * 10_000 + window * 1000 + row * 100 + column * 10 + channel

    images, windows, height, width, channels = 2, 3, 4, 5, 6
    full = torch.tensor(
        [
            [
                [[[value(b, k, y, x, c) for c in range(channels)] for x in range(width)] for y in range(height)]
                for k in range(windows)
            ]
            for b in range(images)
        ]
    )
    nhwc = full[:, 0]
    nchw = nhwc.permute(0, 3, 1, 2)
    found = find((1, height, width, channels), "nhwc").canonical(nhwc, images)
    assert found[1, 3, 2, 4] == value(1, 0, 2, 4, 3) and found.shape == (images, channels, height, width)
    assert find((1, channels, height, width), "nchw").canonical(nchw, images) is nchw
    tokens = find((windows, height * width, channels), "tokens").canonical(full.view(6, 20, channels), images)
    assert tokens.shape == (images, 60, channels)
    assert tokens[1, 2 * 20 + 3 * 5 + 4, 5] == value(1, 2, 3, 4, 5)
    for layout, rows in (("nhwc", full.flatten(0, 1)), ("nchw", full.flatten(0, 1).permute(0, 3, 1, 2))):
        assert torch.equal(find((windows, *rows.shape[1:]), layout).canonical(rows, images), tokens)
    assert torch.equal(find((1, windows, 20, channels), "tokens").canonical(full.flatten(2, 3), images), tokens)
    assert find((1, 6), "auto").canonical(full[:, 0, 0, 0], images).shape == (images, 1, channels)


@pytest.mark.parametrize("shape", [(1, 16, 12), (1, 4, 4, 12)])
def test_windows_that_were_one_at_the_start_are_refused(shape):
    """A patch of one window has its tokens in row order; a larger one has not."""
    layout = find(shape)
    layout.canonical(torch.zeros(3, *shape[1:]), 3)
    with pytest.raises(ValueError, match=r"gives \(12, .* for 3 images, and gave \(1, .* at the start"):
        layout.canonical(torch.zeros(12, *shape[1:]), 3)


@pytest.mark.parametrize(
    ("patch", "length", "grid"),
    [
        ((8, 8), 64, (8, 8)),
        ((8, 8), 16, (4, 4)),
        ((8, 12), 24, (4, 6)),
        ((12, 8), 24, (6, 4)),
    ],
)
def test_grid_of_tokens(patch, length, grid):
    assert FeatureLayout("x", "tokens", (1, length, 4), patch).grid(length) == grid


@pytest.mark.parametrize(("patch", "length"), [((8, 8), 24), ((8, 12), 64), ((3, 2), 1), ((2, 3), 1)])
def test_tokens_without_a_grid(patch, length):
    with pytest.raises(ValueError, match=f"the {length} tokens of x do not make a grid of the patch's aspect ratio"):
        FeatureLayout("x", "tokens", (1, length, 4), patch).grid(length)
