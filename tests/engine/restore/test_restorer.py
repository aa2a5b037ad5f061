from pathlib import Path

import pytest
import torch
from torch import nn

from basicsr.archs import build_network
from basicsr.archs.size_requirement import SizeRequirement
from basicsr.engine.restore import restorer as restorer_module
from basicsr.engine.restore.restorer import Restorer, RestoreSettings, eval_mode
from basicsr.utils.options import OptionError, read_options

RRDB_X1 = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}
ODD_SIZES = [(1, 1), (3, 5), (1, 40), (32, 33), (33, 65)]


class Greedy(nn.Module):
    """Runs out of memory on inputs of more than ``limit`` pixels."""

    def __init__(self, limit, error=torch.cuda.OutOfMemoryError):
        super().__init__()
        self.limit, self.error, self.sizes = limit, error, []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[-2:]))
        if x.shape[-1] * x.shape[-2] > self.limit:
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        return x * 2


def test_settings_come_from_val():
    val = {"tile": 64, "window_size": None, "self_ensemble": True, "metrics": {}, "pbar": True}
    assert RestoreSettings.from_options(val) == RestoreSettings(tile=64, self_ensemble=True)
    assert RestoreSettings.from_options(None) == RestoreSettings()


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize(
    "settings",
    [
        RestoreSettings(),
        RestoreSettings(tile=32),
        RestoreSettings(tile="auto"),
        RestoreSettings(tile=32, tile_overlap=4, self_ensemble=True),
        RestoreSettings(window_size=8, self_ensemble=True),
    ],
)
def test_any_size_through_an_equivariant_network(size, settings):
    net = nn.Upsample(scale_factor=3, mode="nearest")
    net.size_requirement = SizeRequirement(multiple_of=4, minimum=8)
    x = torch.rand(1, 3, *size)
    torch.testing.assert_close(Restorer(net, settings)(x), net(x), rtol=0, atol=1e-6)


def test_tiles_lie_on_the_grid_of_the_network():
    """A network that unshuffles by 4 is shift-invariant by 4 pixels only; its tiles agree with the whole image."""
    torch.manual_seed(0)

    class Net(nn.Module):
        size_requirement = SizeRequirement(multiple_of=4)

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return nn.functional.pixel_shuffle(self.conv(nn.functional.pixel_unshuffle(x, 4)), 4)

    net = Net()
    for size in [(50, 75), (33, 101)]:
        x = torch.rand(1, 1, *size)
        whole = Restorer(net)(x)
        # an output pixel depends on input pixels less than 8 away: a quarter of the overlap
        tiled = Restorer(net, RestoreSettings(tile=67, tile_overlap=32))(x)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_real_network_that_requires_a_multiple(scale):
    torch.manual_seed(0)
    net = build_network({**RRDB_X1, "scale": scale})
    assert Restorer(net)(torch.rand(1, 3, 13, 7)).shape == (1, 3, 13 * scale, 7 * scale)


def test_padding_outside_equals_swinirs_own():
    torch.manual_seed(0)
    options = {"type": "SwinIR", "img_size": 16, "window_size": 8, "embed_dim": 8, "depths": [2], "num_heads": [2]}
    net = build_network({**options, "upscale": 2, "upsampler": "pixelshuffledirect"}).eval()
    x = torch.rand(1, 3, 13, 21)
    with torch.no_grad():
        assert torch.equal(Restorer(net)(x), net(x))


def test_window_size_overrides_what_the_network_declares():
    net = Greedy(10**6)
    net.size_requirement = SizeRequirement(multiple_of=4, minimum=8)
    Restorer(net, RestoreSettings(window_size=5))(torch.rand(1, 1, 3, 11))
    assert net.sizes == [(10, 15)]


def test_modes_and_gradients_are_left_as_they_were():
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Sequential(nn.BatchNorm2d(1), nn.Dropout()))
    net.train()
    net[1][0].eval()  # a part that the training keeps frozen
    before = {name: value.clone() for name, value in net.state_dict().items()}
    output = Restorer(net)(torch.rand(1, 1, 8, 8))
    assert not output.requires_grad
    assert [m.training for m in net.modules()] == [True, True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(ZeroDivisionError), eval_mode(net):
        assert not any(m.training for m in net.modules())
        raise ZeroDivisionError
    assert net.training


def test_a_compiled_network_runs_as_it_was_written():
    net = nn.Conv2d(1, 1, 3)
    net.compile(backend=lambda *_: pytest.fail("was compiled"))
    assert Restorer(net)(torch.rand(1, 1, 8, 8)).shape == (1, 1, 6, 6)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError])
def test_automatic_tiles_are_halved_when_memory_runs_out(monkeypatch, error):
    monkeypatch.setattr(restorer_module, "bytes_per_pixel", lambda *_: 1.0)
    net = Greedy(100 * 100, error)
    x = torch.rand(1, 1, 300, 200)
    restorer = Restorer(net, RestoreSettings(tile="auto"))
    torch.testing.assert_close(restorer(x), x * 2, rtol=0, atol=1e-6)
    assert net.sizes[:2] == [(300, 200), (150, 150)]
    assert set(net.sizes[2:]) == {(75, 75)}
    net.sizes.clear()
    restorer(x)
    assert set(net.sizes) == {(75, 75)}, "what was learnt is kept"


def test_memory_that_does_not_suffice_for_the_smallest_tile(monkeypatch):
    monkeypatch.setattr(restorer_module, "bytes_per_pixel", lambda *_: 1.0)
    net = Greedy(10)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Restorer(net, RestoreSettings(tile="auto"))(torch.rand(1, 1, 300, 200))
    assert min(net.sizes) == (64, 64)


def test_tiles_that_were_asked_for_are_kept():
    net = Greedy(100)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Restorer(net, RestoreSettings(tile=64))(torch.rand(1, 1, 100, 100))
    assert net.sizes == [(64, 64)]


def test_other_errors_are_not_taken_for_lack_of_memory():
    with pytest.raises(RuntimeError, match="channels"):
        Restorer(nn.Conv2d(3, 3, 3), RestoreSettings(tile="auto"))(torch.rand(1, 4, 8, 8))


def test_the_automatic_tile_follows_free_memory(monkeypatch):
    net = nn.Conv2d(3, 3, 3, padding=1)
    x = torch.rand(1, 3, 200, 200)
    for free, tile in ((10**9, None), (10**6, 128)):
        monkeypatch.setattr(restorer_module, "free_memory", lambda _, free=free: free)
        monkeypatch.setattr(restorer_module, "bytes_per_pixel", lambda *_: 10**6 / 2.5 / 128**2)
        restorer = Restorer(net, RestoreSettings(tile="auto"))
        restorer(x)
        assert restorer._tiles.size == (tile or int(1000**0.5 * 128))


def test_impossible_tiles_are_refused():
    with pytest.raises(ValueError, match="tiles of 32 pixels cannot overlap by 20"):
        Restorer(nn.Identity(), RestoreSettings(tile=32, tile_overlap=20))


def test_the_check_of_option_files_refuses_them_too():
    file = Path(__file__).resolve().parents[3] / "options" / "test" / "IMDN" / "test_IMDN_x2.yml"
    force = ["val:tile=32", "val:tile_overlap=20"]
    with pytest.raises(OptionError, match=r"val.tile_overlap \(--force_yml\): must be at most half of the tile of 32"):
        read_options(file, force, is_train=False)
    opt, _ = read_options(file, ["val:tile=auto", "val:tile_overlap=20"], is_train=False)
    assert RestoreSettings.from_options(opt["val"]) == RestoreSettings(tile="auto", tile_overlap=20)
    with pytest.raises(OptionError, match="val.local_statistics .*: cannot be used with tiles"):
        read_options(file, ["val:tile=32", "val:local_statistics=64"], is_train=False)


def test_local_statistics():
    options = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
    network = build_network({"type": "NAFNet", **options})
    local = build_network({"type": "NAFNetLocal", **options, "train_size": [1, 3, 16, 16]})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    local.load_state_dict(network.state_dict())
    lq = torch.rand(1, 3, 40, 44)
    whole, windows = Restorer(network)(lq), Restorer(network, RestoreSettings(local_statistics=16))(lq)
    assert torch.equal(windows, Restorer(local)(lq)) and not torch.allclose(windows, whole, atol=1e-3)
    assert torch.equal(Restorer(network)(lq), whole) and network.training


def test_local_statistics_of_a_network_that_has_none():
    with pytest.raises(ValueError, match=r"val\.local_statistics: Identity has no averages over the image"):
        Restorer(nn.Identity(), RestoreSettings(local_statistics=64))
