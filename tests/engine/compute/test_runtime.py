import shutil

import pytest
import torch
from torch import nn

from basicsr.archs.vqgan_arch import VQGAN
from basicsr.engine.compute.runtime import NetworkRuntime


class Net(nn.Module):  # not an nn.Sequential, which torch.compile leaves alone
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        return self.last(nn.functional.gelu(self.first(x)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize(("precision", "error"), [("fp32", 0.0), ("tf32", 0.0), ("bf16", 0.02), ("fp16", 0.003)])
def test_precision(net, precision, error):
    """On the CPU tf32 is fp32; bf16 and fp16 differ by about their rounding, and are not the same as fp32."""
    x = torch.rand(1, 3, 8, 8)
    expected = net(x)
    output = NetworkRuntime(precision).run(net, x)
    assert output.dtype is torch.float32
    difference = (output - expected).abs().max().item()
    assert (difference == 0) == (error == 0)
    assert difference <= error


def test_channels_last_changes_the_layout_and_not_the_result(net):
    x = torch.rand(2, 3, 8, 8)
    expected = net(x)
    runtime = NetworkRuntime(channels_last=True)
    runtime.to_memory_format(net)
    assert net.first.weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    net.first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(runtime.run(net, x), expected)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler")
def test_compiled_network_keeps_its_keys_and_results(net):
    x = torch.rand(2, 3, 8, 8)
    expected, keys = net(x), list(net.state_dict())
    runtime = NetworkRuntime(compile=True)
    runtime.compile_in_place(net)
    torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(runtime.run(net, x), expected)
    assert list(net.state_dict()) == keys
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "nothing was compiled"


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler")
def test_an_encoder_is_compiled_where_it_is_entered():
    torch.manual_seed(0)
    ddconfig = {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "resolution": 16}
    net = VQGAN(embed_dim=4, n_embed=8, ddconfig={**ddconfig, "z_channels": 4}).requires_grad_(False).eval()
    image, keys = torch.rand(2, 3, 16, 16), list(net.state_dict())
    expected = [*net.features(image), net.latent_from_features(net.features(image))]
    NetworkRuntime(compile=True).compile_in_place(net)
    torch._dynamo.utils.counters.clear()
    features = net.features(image)
    for one, other in zip([*features, net.latent_from_features(features)], expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["frames"]["ok"] == 2
    assert list(net.state_dict()) == keys


def test_a_module_that_is_called_features_stays(net):
    net.features = net.first
    keys = list(net.state_dict())
    NetworkRuntime(compile=True).compile_in_place(net)
    assert list(net.state_dict()) == keys
