"""Stripping a VQGAN's checkpoint."""

import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from basicsr.archs.vqgan_arch import VQGAN, VQGANAutoEncoder
from basicsr.archs.vqgan_checkpoint import load_with_stand_ins, strip_checkpoint
from basicsr.utils.weights import load_weights

DDCONFIG = {
    "ch": 32,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "resolution": 16,
    "z_channels": 4,
}
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "strip_vqgan.py"


@pytest.fixture
def whole() -> VQGANAutoEncoder:
    torch.manual_seed(0)
    return VQGANAutoEncoder(4, 6, DDCONFIG)


@pytest.fixture
def lightning(tmp_path, whole, monkeypatch) -> Path:
    """A checkpoint as Lightning writes it: with the losses' networks, optimisers, and a class of its own."""
    module = types.ModuleType("absent_lightning.callbacks")
    ran = type("ModelCheckpoint", (), {"__module__": module.__name__})
    state = type("State", (), {"__module__": module.__name__})
    module.ModelCheckpoint, module.State = ran, state
    parent = types.ModuleType("absent_lightning")
    parent.callbacks = module
    monkeypatch.setitem(sys.modules, "absent_lightning", parent)
    monkeypatch.setitem(sys.modules, "absent_lightning.callbacks", module)
    thing = state()
    thing.best = 1.5
    loss = {"loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4)}
    checkpoint = {
        "epoch": 1,
        "callbacks": {ran: {"best": torch.tensor(1.0)}, "other": thing},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(500_000)}}}],
        "state_dict": {**whole.state_dict(), **loss},
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, "absent_lightning.callbacks")
    monkeypatch.delitem(sys.modules, "absent_lightning")
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_distillation_needs_is_kept(lightning, whole, tmp_path, suffix):
    target = tmp_path / "made" / f"encoder{suffix}"
    report = strip_checkpoint(lightning, target)
    net = VQGAN(4, 6, DDCONFIG)
    assert load_weights(net, target, strict=True, param_key="state_dict") == []
    for key, value in net.state_dict().items():
        assert torch.equal(value, whole.state_dict()[key])
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in whole.named_children()}
    assert report.kept == {name: counts[name] for name in ("encoder", "quant_conv", "quantize")}
    assert report.dropped == {**{name: counts[name] for name in ("post_quant_conv", "decoder")}, "loss": 192}
    assert report.bytes_after == target.stat().st_size < report.bytes_before - 4 * 500_000
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    assert f"encoder {counts['encoder']:,}" in str(report)


def test_our_own_files_give_the_averaged_weights(whole, tmp_path):
    averaged = {key: value + 1 for key, value in whole.state_dict().items()}
    torch.save({"params": whole.state_dict(), "params_ema": averaged}, tmp_path / "net_g_latest.pth")
    strip_checkpoint(tmp_path / "net_g_latest.pth", tmp_path / "encoder.pth")
    kept = torch.load(tmp_path / "encoder.pth", weights_only=True)["state_dict"]
    assert torch.equal(kept["quant_conv.weight"], averaged["quant_conv.weight"])


def test_foreign_objects_are_replaced_and_run_nothing(lightning):
    allowed = set(torch.serialization.get_safe_globals())
    checkpoint = load_with_stand_ins(lightning)
    assert checkpoint["epoch"] == 1
    assert vars(checkpoint["callbacks"]["other"]) == {}
    assert "absent_lightning" not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == allowed


class _Harmful:
    """Calls a function when it is unpickled."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


def test_a_file_that_would_run_code_does_not(tmp_path, whole):
    state = whole.state_dict()
    (tmp_path / "precious").mkdir()
    harm = _Harmful(shutil.rmtree, str(tmp_path / "precious"))
    torch.save({"state_dict": state, "harm": harm}, tmp_path / "harmful.ckpt")
    strip_checkpoint(tmp_path / "harmful.ckpt", tmp_path / "encoder.pth")
    assert (tmp_path / "precious").is_dir()
    torch.save({"state_dict": {**state, "encoder.conv_in.weight": harm}}, tmp_path / "worse.ckpt")
    with pytest.raises(ValueError, match="holds no state dict"):
        strip_checkpoint(tmp_path / "worse.ckpt", tmp_path / "encoder.pth")
    torch.save({"state_dict": state, "harm": _Harmful(eval, "1 + 1")}, tmp_path / "builtin.ckpt")
    with pytest.raises(ValueError, match="is refused: it holds the pickled object eval"):
        strip_checkpoint(tmp_path / "builtin.ckpt", tmp_path / "encoder.pth")


def test_bad_input(tmp_path, whole):
    with pytest.raises(ValueError, match=r"written as \.pth or \.safetensors, not as '\.ckpt'"):
        strip_checkpoint(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    with pytest.raises(FileNotFoundError, match="a.ckpt does not exist"):
        strip_checkpoint(tmp_path / "a.ckpt", tmp_path / "b.pth")
    (tmp_path / "a.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="damaged or not a checkpoint"):
        strip_checkpoint(tmp_path / "a.ckpt", tmp_path / "b.pth")
    gumbel = {key: value for key, value in whole.state_dict().items() if not key.startswith("quantize")}
    torch.save({"state_dict": {**gumbel, "quantize.embed.weight": torch.zeros(2, 2)}}, tmp_path / "a.ckpt")
    with pytest.raises(
        ValueError, match=r"no VQGAN with a codebook: it has no key that begins with quantize.embedding"
    ):
        strip_checkpoint(tmp_path / "a.ckpt", tmp_path / "b.pth")
    assert not (tmp_path / "b.pth").exists()


def test_the_command(lightning, tmp_path):
    command = [sys.executable, str(SCRIPT), "--input", str(lightning), "--output", str(tmp_path / "encoder.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "MB →" in done.stdout
    assert (tmp_path / "encoder.pth").is_file()
    command[-1] = str(tmp_path / "encoder.onnx")
    failed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
