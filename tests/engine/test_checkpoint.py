import errno
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from basicsr.engine import checkpoint
from basicsr.engine.checkpoint import find_damage
from basicsr.utils.atomic_file import atomic_save, remove_leftovers
from basicsr.utils.weights import extract_state_dict, load_file, load_weights, strip_prefixes


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def other():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def assert_equal(one, another):
    for key, value in one.state_dict().items():
        assert torch.equal(value, another.state_dict()[key]), key


@pytest.mark.parametrize("layout", ["raw", "params", "params_ema", "state_dict", "both"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_layouts_that_load(net, tmp_path, layout, prefix, suffix):
    state = {prefix + key: value for key, value in net.state_dict().items()}
    wrong = {key: value + 1 for key, value in state.items()}
    content = {"raw": state, "both": {"params": wrong, "params_ema": state}}.get(layout, {layout: state, "epoch": 3})
    torch.save(content, tmp_path / f"w{suffix}")
    target = other()
    assert load_weights(target, tmp_path / f"w{suffix}", param_key="params_ema") == []
    assert_equal(net, target)


def test_safetensors(net, tmp_path):
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    target = other()
    load_weights(target, tmp_path / "w.safetensors")
    assert_equal(net, target)


def test_a_url_is_downloaded_once(net, tmp_path, monkeypatch):
    torch.save(net.state_dict(), tmp_path / "w.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    fetched = []

    def fetch(url, path, hash_prefix, progress):
        fetched.append(url)
        (tmp_path / "w.pth").rename(path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        target = other()
        load_weights(target, "https://example.org/models/net.pth?raw=1")
        assert_equal(net, target)
    assert fetched == ["https://example.org/models/net.pth?raw=1"]
    assert (tmp_path / "hub" / "checkpoints" / "net.pth").is_file()


def test_half_precision_weights_load_into_float32(net, tmp_path):
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}, tmp_path / "w.pth")
    target = other()
    load_weights(target, tmp_path / "w.pth")
    assert target[0].weight.dtype is torch.float32
    torch.testing.assert_close(target[0].weight, net[0].weight, rtol=1e-3, atol=1e-4)


def test_a_part_named_module_keeps_its_name(tmp_path):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    holder = Holder()
    torch.save(checkpoint.cpu_state_dict(holder), tmp_path / "w.pth")
    assert load_weights(Holder(), tmp_path / "w.pth") == []


def test_a_file_of_which_nothing_fits_is_refused_even_when_not_strict(net, tmp_path):
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not fit Sequential: none of its keys does \(other.weight\)"):
        load_weights(net, tmp_path / "w.pth", strict=False)


def test_a_mismatch_lists_every_kind(net, tmp_path):
    state = net.state_dict()
    state["0.weight"] = torch.zeros(4, 1, 3, 3)
    state["extra"] = state.pop("1.bias")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError) as error:
        load_weights(other(), tmp_path / "w.pth")
    message = str(error.value)
    assert "1 missing in the file: 1.bias" in message
    assert "1 unexpected in the file: extra" in message
    assert "0.weight [4, 1, 3, 3] in the file, [2, 1, 3, 3] in the network" in message
    target = other()
    differences = load_weights(target, tmp_path / "w.pth", strict=False)
    assert len(differences) == 3
    assert torch.equal(target[0].bias, net[0].bias)


class Payload:
    """Would run a command if it were unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("touch pickled_code_ran",)


def test_pickled_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"params": Payload()}, "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth is refused: it holds the pickled object \w+\.system"):
        load_file("w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match=r"plain\.pth is damaged or not a checkpoint: Unsupported operand"):
        load_file("plain.pth")
    assert not (tmp_path / "pickled_code_ran").exists()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", "truncated"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_named(net, tmp_path, damage, suffix):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(net.state_dict(), path)
    else:
        save_file(net.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-50] if damage == "truncated" else damage)
    with pytest.raises(ValueError, match=rf"w\{suffix} is damaged"):
        load_file(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the checkpoint .*gone\.pth does not exist"):
        load_file(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("content", "message"), [({"epoch": 3}, "holds no state dict; it has the keys epoch"), ([1, 2], "but a list")]
)
def test_a_file_without_weights(content, message):
    with pytest.raises(ValueError, match=message):
        extract_state_dict(content)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("module.a.b", "a.b"),
        ("module.module.a", "a"),
        ("_orig_mod.module.a", "a"),
        ("a._orig_mod.b", "a.b"),
        ("a.module.b", "a.module.b"),
        ("modules.a", "modules.a"),
    ],
)
def test_strip_prefixes(key, expected):
    assert strip_prefixes(key) == expected


def test_a_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    atomic_save({"a": torch.ones(2)}, path)

    def full_disk(obj, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match=r"x\.pth could not be written .*No space left.* previous file .* untouched"):
        atomic_save({"a": torch.zeros(2)}, path)
    assert torch.equal(load_file(path)["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_find_damage(tmp_path):
    path = tmp_path / "x.state"
    assert find_damage(path) == "is absent"
    atomic_save({"a": torch.arange(1000)}, path)
    assert find_damage(path) is None
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(100):  # cut or changed anywhere; a byte of padding between the records may be any
        position = rng.randrange(len(whole))
        path.write_bytes(whole[:position])
        assert find_damage(path) == "is incomplete or damaged"
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        assert find_damage(path) is not None or torch.equal(load_file(path)["a"], torch.arange(1000))
    for garbage in (b"", b"garbage", b"PK\x03\x04" + bytes(500)):
        path.write_bytes(garbage)
        assert find_damage(path) == "is incomplete or damaged"
    path.unlink()
    path.mkdir()
    assert find_damage(path) == "is a folder"


def test_leftovers_of_killed_writes_are_removed(tmp_path):
    for name in (".net_g_4.pth.123.tmp", ".hidden", "net_g_4.pth", ".notes.tmp"):
        (tmp_path / name).write_bytes(b"x")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", ".notes.tmp", "net_g_4.pth"]
