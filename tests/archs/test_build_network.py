import subprocess
import sys

import pytest
import torch

from basicsr.archs import build_network


def test_builds_the_named_network_and_leaves_the_options_alone():
    opt = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2}
    before = dict(opt)
    network = build_network(opt)
    assert type(network).__name__ == "EDSR"
    assert network(torch.rand(1, 3, 5, 6)).shape == (1, 3, 10, 12)
    assert opt == before


@pytest.mark.parametrize(
    ("opt", "error", "words"),
    [
        ({"num_feat": 8}, ValueError, ["`type`", "EDSR"]),
        ({"type": "EDSRR"}, KeyError, ["EDSRR", "'EDSR'"]),
        ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feats": 8}, ValueError, ["'EDSR'", "num_feats"]),
        ({"type": "EDSR", "num_in_ch": 3}, ValueError, ["'EDSR'", "num_out_ch"]),
        ({"type": "EDSR", "num_in_ch": "three", "num_out_ch": 3}, ValueError, ["'EDSR'|rgb_mean"]),
        ({"type": "EDSR", "num_in_ch": 1, "num_out_ch": 1}, ValueError, ["rgb_mean", "3 values"]),
        ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 6}, ValueError, ["6", "power of two"]),
        ({"type": "RCAN", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8}, ValueError, ["squeeze_factor", "num_feat"]),
        ({"type": "MSRResNet", "upscale": 8}, ValueError, ["upscale", "8"]),
        ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 3}, ValueError, ["scale", "3"]),
        ({"type": "SRVGGNetCompact", "act_type": "gelu"}, ValueError, ["act_type", "prelu", "gelu"]),
        ({"type": "IMDN", "num_feat": 24}, ValueError, ["num_feat", "24"]),
        ({"type": "SwinIR", "patch_size": 4}, ValueError, ["patch_size"]),
        ({"type": "SwinIR", "depths": [2], "num_heads": [2, 2]}, ValueError, ["depths", "num_heads"]),
        ({"type": "SwinIR", "embed_dim": 50}, ValueError, ["embed_dim", "num_heads"]),
        ({"type": "SwinIR", "img_size": 50}, ValueError, ["img_size", "window_size"]),
        ({"type": "SwinIR", "img_size": 56}, ValueError, ["upsampler", "upscale"]),
        ({"type": "SwinIR", "img_size": 56, "upsampler": "bicubic"}, ValueError, ["upsampler", "pixelshuffle"]),
        ({"type": "SwinIR", "img_size": 56, "upsampler": "nearest+conv", "upscale": 3}, ValueError, ["nearest", "3"]),
        ({"type": "SwinIR", "img_size": 56, "resi_connection": "2conv"}, ValueError, ["resi_connection", "2conv"]),
    ],
)
def test_a_wrong_option_is_named(opt, error, words):
    with pytest.raises(error) as caught:
        build_network(opt)
    for word in words:
        assert any(choice in str(caught.value) for choice in word.split("|")), str(caught.value)


def test_importing_the_package_imports_no_network():
    code = "import sys, basicsr.archs; print([m for m in sys.modules if m.startswith('basicsr.archs.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
