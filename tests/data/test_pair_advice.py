"""What is said of folders that do not make pairs."""

import re

import pytest
import torch
import torch.nn.functional as F

from basicsr.data.pair_advice import advice_on_names, advice_on_sizes, look_unlike


@pytest.mark.parametrize(
    "gt, lq, scale, expected",
    [
        ((64, 48), (16, 12), 2, "LQ is 4 times smaller: set dataroot_lq to the images of scale 2, or `scale` .* to 4"),
        ((67, 50), (16, 12), 2, "LQ is 4 times smaller"),  # GT that was not cut to a multiple
        ((64, 48), (64, 48), 2, "LQ is as large as GT: set dataroot_lq to the images of scale 2, or `scale` to 1"),
        ((32, 24), (64, 48), 2, "LQ is the larger one: dataroot_gt and dataroot_lq look swapped"),
        ((64, 48), (24, 32), 2, "The sizes are those of different images"),
        ((64, 48), (32, 30), 2, "The sizes are those of different images"),
    ],
)
def test_sizes(gt, lq, scale, expected):
    assert re.match(expected, advice_on_sizes(gt, lq, scale))


@pytest.mark.parametrize(
    "gt, lq, template, expected",
    [
        (["a", "b"], ["ax4", "bx4"], "{}", " Set filename_tmpl to '{}x4', with which they make pairs."),
        (["a", "b"], ["lr_a", "lr_b"], "{}x2", " Set filename_tmpl to 'lr_{}', with which they make pairs."),
        (["a", "b"], ["a", "b"], "{}x2", " Set filename_tmpl to '{}', with which they make pairs."),
        (["1", "11"], ["1x2", "11x2"], "{}", " Set filename_tmpl to '{}x2', with which they make pairs."),
        (["ax2", "bx2"], ["a", "b"], "{}x2", " dataroot_gt and dataroot_lq look swapped: the other way round they "),
        (["a", "b"], ["a"], "{}", " There are 2 GT and 1 LQ images; remove those without a partner, or add it."),
        (["a", "b"], ["c", "d", "e"], "{}", " There are 2 GT and 3 LQ images; check that both are of the same data"),
        (["{a}", "b"], ["c"], "{}", " There are 2 GT and 1 LQ images"),
    ],
)
def test_names(gt, lq, template, expected):
    found = advice_on_names([f"{name}.png" for name in gt], [f"{name}.png" for name in lq], template)
    assert found.startswith(expected)


def test_pictures():
    picture, other = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gt = F.interpolate(picture[None], scale_factor=2, mode="bilinear")[0]
    assert not look_unlike(picture, gt)
    assert not look_unlike((picture + 0.1 * torch.randn(3, 16, 16)).clamp(0, 1), gt)
    assert look_unlike(other, gt)
    assert not look_unlike(torch.full_like(other, 0.5), gt)  # nothing to compare
    assert not look_unlike(other[:, :8, :8], gt[:, :16, :16])
