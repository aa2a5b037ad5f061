import pytest
import torch
from torch import nn

from basicsr.engine.restore import tile_size
from basicsr.engine.restore.tile_size import PeakMemory, bytes_per_pixel, free_memory, largest_tile


def test_peak_counts_what_lives_at_once():
    x = torch.zeros(1000)
    with PeakMemory() as memory, torch.no_grad():
        a = x + 1  # 4000 bytes
        a.add_(1)  # in place
        b = a[:500]  # a view
        c = b * 2  # 2000 bytes more
        assert memory.peak == 6000
        del a, b, c
        d = torch.cat([x, x[:250]])  # 5000 bytes; x itself is seen through its view, 4000 bytes
        assert memory.peak == 9000
        del d
        _ = x + 1
    assert memory.peak == 9000


def test_bytes_per_pixel_of_a_convolution():
    """64 channels to 64 channels and then to 1: at most two feature maps of 4 bytes live, plus the input."""
    net = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 3, padding=1))
    with torch.no_grad():
        measured = bytes_per_pixel(net, torch.zeros(1, 1, 5, 7), side=32)
    assert 2 * 64 * 4 <= measured <= 3 * 64 * 4


@pytest.mark.parametrize(
    ("free", "per_pixel", "multiple_of", "tile"),
    [(2.5 * 4096 * 100**2, 4096, 1, 100), (2.5 * 4096 * 100**2, 4096, 16, 96), (0, 4096, 8, 8), (100, 0, 1, 6)],
)
def test_largest_tile(free, per_pixel, multiple_of, tile):
    assert largest_tile(free, per_pixel, multiple_of) == tile


def test_free_memory_of_this_machine():
    free = free_memory(torch.device("cpu"))
    assert 1 << 20 < free < 1 << 50
    assert free_memory(torch.device("meta")) == tile_size.ASSUMED_FREE


def test_a_control_groups_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert tile_size._cgroup_free("memory.max", "memory.current", str(tmp_path)) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert tile_size._cgroup_free("memory.max", "memory.current", str(tmp_path)) == -1
    assert tile_size._cgroup_free("memory.max", "memory.current", str(tmp_path / "absent")) == -1
