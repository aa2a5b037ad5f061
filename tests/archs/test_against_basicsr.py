"""The same weights and inputs through PyPI's BasicSR 1.4.2 give the same outputs.

Set ``BASICSR_REFERENCE`` to a folder that holds its package, for example an unpacked source archive. It runs in a
process of its own, where empty packages stand in for its ``__init__`` files (which import everything) and for
torchvision (which it needs only for deformable convolution).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from basicsr.archs import build_network

RGB = {"num_in_ch": 3, "num_out_ch": 3}
EDSR = {"type": "EDSR", "num_feat": 16, "num_block": 2, "res_scale": 0.1} | RGB
RCAN = {"type": "RCAN", "num_feat": 16, "num_group": 2, "num_block": 2, "squeeze_factor": 4, "res_scale": 0.5} | RGB
RRDB = {"type": "RRDBNet", "num_feat": 16, "num_block": 2, "num_grow_ch": 8} | RGB
SWIN = {"type": "SwinIR", "img_size": 16, "embed_dim": 12, "depths": [3, 2], "num_heads": [2, 3], "window_size": 4}
CASES = [
    *(EDSR | {"upscale": scale} for scale in (2, 3, 4)),
    *(RCAN | {"upscale": scale} for scale in (2, 3, 4)),
    *({"type": "MSRResNet", "num_feat": 16, "num_block": 2, "upscale": scale} for scale in (2, 3, 4)),
    *(
        {"type": "SRVGGNetCompact", "num_feat": 16, "num_conv": 2, "upscale": scale, "act_type": act}
        for scale, act in ((2, "relu"), (3, "leakyrelu"), (4, "prelu"))
    ),
    *(RRDB | {"scale": scale} for scale in (1, 2, 4)),
    SWIN | {"upsampler": "pixelshuffle", "upscale": 4},
    SWIN | {"upsampler": "pixelshuffle", "upscale": 3, "img_range": 255.0, "mlp_ratio": 2},
    SWIN | {"upsampler": "pixelshuffledirect", "upscale": 2},
    SWIN | {"upsampler": "nearest+conv", "upscale": 4, "resi_connection": "3conv"},
    SWIN | {"upsampler": "", "upscale": 1, "in_chans": 1, "patch_norm": False, "resi_connection": "3conv"},
    SWIN | {"upsampler": "", "upscale": 1, "qk_scale": 0.2, "qkv_bias": False},
    SWIN | {"upsampler": "", "upscale": 1, "ape": True, "img_size": 24},
    SWIN | {"upsampler": "", "upscale": 1, "img_size": 4},
    SWIN | {"upsampler": "", "upscale": 1, "window_size": 8},
]
FILES = {"EDSR": "edsr", "RCAN": "rcan", "MSRResNet": "srresnet", "SRVGGNetCompact": "srvgg", "RRDBNet": "rrdbnet"}
FILES |= {"SwinIR": "swinir"}

RUN_REFERENCE = """
import importlib, sys, types
import torch

root, cases_file, results_file = sys.argv[1:]
torch.set_num_threads(1)

def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__path__ = [f"{root}/{name.replace('.', '/')}"]
    vars(module).update(members)
    sys.modules[name] = module

stand_in("torchvision", __version__="0")
stand_in("torchvision.ops", deform_conv2d=None)
for package in ("basicsr", "basicsr.archs", "basicsr.ops"):
    stand_in(package)
stand_in("basicsr.utils", get_root_logger=None)
stand_in("basicsr.ops.dcn", ModulatedDeformConvPack=object, modulated_deform_conv=None)

results = []
for opt, file, x in torch.load(cases_file):
    torch.manual_seed(0)
    network = getattr(importlib.import_module(f"basicsr.archs.{file}_arch"), opt.pop("type"))(**opt).eval()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    with torch.no_grad():
        results.append((network.state_dict(), network(x)))
torch.save(results, results_file)
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> list:
    root = os.environ.get("BASICSR_REFERENCE")
    if not root:
        pytest.skip("BASICSR_REFERENCE does not name a folder with PyPI's basicsr package")
    folder: Path = tmp_path_factory.mktemp("reference")
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.rand(2, opt.get("in_chans", 3), 24, 24 if opt.get("ape") else 16, generator=generator) for opt in CASES
    ]
    torch.save([(opt, FILES[opt["type"]], x) for opt, x in zip(CASES, inputs, strict=True)], folder / "cases")
    command = [sys.executable, "-W", "ignore", "-c", RUN_REFERENCE, root, folder / "cases", folder / "results"]
    subprocess.run(command, check=True, cwd=folder)
    return [(x, *result) for x, result in zip(inputs, torch.load(folder / "results"), strict=True)]


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case["type"] for case in CASES])
def test_layout_and_output_are_the_references(reference, index):
    x, weights, expected = reference[index]
    network = build_network(CASES[index]).eval()
    state = network.state_dict()
    assert [(key, value.shape, value.dtype) for key, value in state.items()] == [
        (key, value.shape, value.dtype) for key, value in weights.items()
    ]
    network.load_state_dict(weights, strict=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[key]), key
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
