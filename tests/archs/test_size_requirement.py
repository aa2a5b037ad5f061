import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.archs.size_requirement import SizeRequirement, size_requirement_of


@pytest.mark.parametrize(
    ("requirement", "size", "padded"),
    [
        (SizeRequirement(), (1, 7), (1, 7)),
        (SizeRequirement(multiple_of=4), (1, 8), (4, 8)),
        (SizeRequirement(multiple_of=4, minimum=10), (1, 13), (12, 16)),
        (SizeRequirement(minimum=16), (17, 3), (17, 16)),
        (SizeRequirement(multiple_of=8, square=True), (9, 30), (32, 32)),
    ],
)
def test_the_padded_size(requirement, size, padded):
    assert requirement.padded(*size) == padded
    assert requirement.padded(*padded) == padded


@pytest.mark.parametrize("numbers", [{"multiple_of": 0}, {"minimum": -1}])
def test_impossible_requirements_are_refused(numbers):
    with pytest.raises(ValueError, match="must be at least 1"):
        SizeRequirement(**numbers)


SWINIR = {"type": "SwinIR", "img_size": 8, "window_size": 4, "embed_dim": 4, "depths": [2], "num_heads": [1]}
NETWORKS = [
    ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "scale": 1}, 4),
    ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "scale": 2}, 2),
    ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "scale": 4}, 1),
    ({**SWINIR, "upscale": 1}, 4),
    ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1}, 1),
]


@pytest.mark.parametrize(("options", "multiple"), NETWORKS)
def test_what_our_networks_declare_is_accepted_by_them(options, multiple):
    net = build_network(options).eval()
    assert size_requirement_of(net).multiple_of == multiple
    height, width = size_requirement_of(net).padded(5, 9)
    with torch.no_grad():
        assert net(torch.rand(1, 3, height, width)).shape[-1] % width == 0


def test_another_declaration_is_refused():
    net = nn.Conv2d(1, 1, 1)
    net.size_requirement = 8
    with pytest.raises(ValueError, match=r"Conv2d.size_requirement must be a .*SizeRequirement, not 8"):
        size_requirement_of(net)
