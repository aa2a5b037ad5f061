"""Crops and symmetries, on images whose pixels are their own coordinates."""

import random

import numpy as np
import pytest
import torch

from basicsr.data.transforms import augment, img_rotate, mod_crop, normalize, paired_random_crop


def _coordinates(height: int, width: int) -> np.ndarray:
    """(H, W, 2): each pixel holds (row, column)."""
    return np.stack(np.mgrid[:height, :width], axis=-1).astype(np.float32)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_crops_are_aligned(scale, as_tensor):
    random.seed(0)
    lq, gt = _coordinates(9, 12), _coordinates(9 * scale, 12 * scale)
    if as_tensor:
        lq, gt = (torch.from_numpy(img).permute(2, 0, 1)[None] for img in (lq, gt))
    corners = set()
    for _ in range(200):
        gt_patch, lq_patch = paired_random_crop(gt, lq, 6 * scale, scale)
        if as_tensor:
            gt_patch, lq_patch = (img[0].permute(1, 2, 0).numpy() for img in (gt_patch, lq_patch))
        assert gt_patch.shape == (6 * scale, 6 * scale, 2) and lq_patch.shape == (6, 6, 2)
        np.testing.assert_array_equal(gt_patch[::scale, ::scale], lq_patch * scale)
        corners.add(tuple(lq_patch[0, 0]))
    assert corners == {(top, left) for top in range(4) for left in range(7)}


def test_several_images_share_a_crop():
    gts, lq = paired_random_crop([_coordinates(8, 8), _coordinates(8, 8) + 100], _coordinates(4, 4), 4, 2)
    np.testing.assert_array_equal(gts[0] + 100, gts[1])
    assert lq.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("gt_shape", "lq_shape", "size", "message"),
    [
        ((16, 17), (8, 8), 4, "a.png: GT is 16×17 and LQ 8×8 pixels .* at scale 2 GT must be 16×16"),
        ((16, 24), (8, 12), 18, "a.png: GT of 16×24 pixels .* smaller than a crop of 18×18"),
        ((16, 16), (8, 8), 5, "gt_size 5 is not a multiple of the scale 2"),
    ],
)
def test_impossible_crops_name_the_file(gt_shape, lq_shape, size, message):
    with pytest.raises(ValueError, match=message):
        paired_random_crop(np.zeros((*gt_shape, 3)), np.zeros((*lq_shape, 3)), size, 2, "a.png")


def test_all_eight_symmetries_are_equally_likely_and_reported():
    random.seed(0)
    img = _coordinates(3, 3)[..., :1] * 3 + _coordinates(3, 3)[..., 1:]
    counts: dict[bytes, int] = {}
    for _ in range(800):
        turned, (hflip, vflip, transpose) = augment(img, return_status=True)
        expected = np.fliplr(img) if hflip else img
        expected = np.flipud(expected) if vflip else expected
        expected = expected.transpose(1, 0, 2) if transpose else expected
        np.testing.assert_array_equal(turned, expected)
        assert turned.flags["C_CONTIGUOUS"]
        counts[turned.tobytes()] = counts.get(turned.tobytes(), 0) + 1
    symmetries = [np.rot90(i, k) for i in (img, np.fliplr(img)) for k in range(4)]
    assert set(counts) == {np.ascontiguousarray(i).tobytes() for i in symmetries}
    assert min(counts.values()) > 60  # 100 expected, standard deviation 9.4


def test_augmentation_switches_and_inputs_untouched():
    random.seed(0)
    img = _coordinates(2, 3)
    kept = img.copy()
    assert {augment(img, True, False).tobytes() for _ in range(30)} == {img.tobytes(), img[:, ::-1].tobytes()}
    assert {augment(img, False, False).tobytes() for _ in range(5)} == {img.tobytes()}
    shapes = {augment(img, False, True).shape for _ in range(30)}
    assert shapes == {(2, 3, 2), (3, 2, 2)}
    np.testing.assert_array_equal(img, kept)


def test_images_are_turned_alike():
    first, second = augment([_coordinates(4, 4), _coordinates(4, 4) + 7])
    np.testing.assert_array_equal(first + 7, second)


def test_flows_are_turned_with_their_image():
    """A flow that points from every pixel to one target must do so in the turned image, too."""
    random.seed(0)
    height, width = 4, 6
    rows, columns = np.mgrid[:height, :width]
    flow = np.stack([4 - columns, 1 - rows], axis=-1).astype(np.float32)
    img = np.zeros((height, width, 1), np.float32)
    img[1, 4] = 1
    for _ in range(30):
        turned, turned_flow = augment(img, flows=flow)
        (row,), (column,), _ = np.nonzero(turned)
        rows, columns = np.mgrid[: turned.shape[0], : turned.shape[1]]
        np.testing.assert_array_equal(turned_flow, np.stack([column - columns, row - rows], axis=-1))


def test_mod_crop():
    img = _coordinates(11, 14)
    np.testing.assert_array_equal(mod_crop(img, 4), img[:8, :12])
    assert mod_crop(img[..., 0], 3).shape == (9, 12)
    with pytest.raises(ValueError, match=r"not the shape \(2, 3, 4, 5\)"):
        mod_crop(np.zeros((2, 3, 4, 5)), 2)


def test_img_rotate_by_a_right_angle():
    img = np.random.default_rng(0).random((5, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(img_rotate(img, 90), np.rot90(img), atol=1e-6)
    assert img_rotate(img, 0, scale=2.0).shape == img.shape


def test_normalize():
    img = torch.rand(3, 2, 2)
    out = normalize(img, [0.1, 0.2, 0.3], [1.0, 2.0, 4.0])
    for channel, (mean, std) in enumerate(((0.1, 1.0), (0.2, 2.0), (0.3, 4.0))):
        torch.testing.assert_close(out[channel], (img[channel] - mean) / std)
    torch.testing.assert_close(normalize(img, [0.5], None), img - 0.5)
    assert normalize(img, None, None) is img
    with pytest.raises(ValueError, match="mean has 2 values for an image of 3 channels"):
        normalize(img, [0.0, 0.0], None)
