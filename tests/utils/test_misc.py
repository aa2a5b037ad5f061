import random
import re

import numpy as np
import pytest
import torch

from basicsr.utils import misc


def test_scandir(tmp_path):
    for name in ("b.png", "a.png", ".hidden.png", "c.txt", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(misc.scandir(str(tmp_path))) == ["a.png", "b.png", "c.txt"]
    assert list(misc.scandir(str(tmp_path), suffix=".png", recursive=True)) == ["a.png", "b.png", "sub/d.png"]
    assert list(misc.scandir(str(tmp_path), suffix=(".txt",), full_path=True)) == [str(tmp_path / "c.txt")]
    with pytest.raises(TypeError, match="suffix must be a string"):
        misc.scandir(str(tmp_path), suffix=3)


def test_mkdir_and_rename_keeps_what_was_there(tmp_path):
    for content in "abc":
        misc.mkdir_and_rename(str(tmp_path / "run"))
        (tmp_path / "run" / "file").write_text(content)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert all(re.fullmatch(r"run_archived_\d{8}_\d{6}", name) for name in names[1:])
    assert sorted((tmp_path / name / "file").read_text() for name in names) == ["a", "b", "c"]


def test_set_random_seed():
    draws = []
    for _ in range(2):
        misc.set_random_seed(5)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_resume_takes_the_networks_of_the_run_as_they_were_trained(tmp_path):
    (tmp_path / "net_g_100.pth").touch()
    opt = {
        "network_g": {},
        "network_t": {},
        "path": {
            "models": str(tmp_path),
            "pretrain_network_g": "old.pth",
            "param_key_g": "params_ema",
            "strict_load_g": False,
            "pretrain_network_t": "teacher.pth",
            "param_key_t": "params_ema",
        },
    }
    misc.check_resume(opt, 100)
    path = opt["path"]
    assert path["pretrain_network_g"] == str(tmp_path / "net_g_100.pth")
    assert path["param_key_g"] == "params", "the trained weights go on, not their average"
    assert path["strict_load_g"] is True
    assert path["pretrain_network_t"] == "teacher.pth"
    assert path["param_key_t"] == "params_ema"


@pytest.mark.parametrize(("size", "expected"), [(100, "100.0 B"), (1536, "1.5 KB"), (3 * 2**30, "3.0 GB")])
def test_sizeof_fmt(size, expected):
    assert misc.sizeof_fmt(size) == expected
