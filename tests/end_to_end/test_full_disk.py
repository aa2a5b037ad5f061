"""A disk that becomes full while a run validates and logs: the training goes on."""

import os
import re
import subprocess

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from basicsr.models.sr_model import SRModel
from basicsr.utils import tensorboard_writer


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root and the permission to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def options(options):
    """A plain training that saves pictures and logs to TensorBoard."""
    del options["network_t"], options["train"]["kd_opt"]
    options |= {"model_type": "SRModel"}
    options["logger"] |= {"use_tb_logger": True, "save_checkpoint_freq": 100}
    options["val"] |= {"val_freq": 2, "save_img": True, "metrics": {"psnr": options["val"]["metrics"]["psnr"]}}
    return options


class Flushed(SummaryWriter):
    """Writes at once, and more than what is left of a file's last page, so that errors come at once."""

    def add_scalar(self, *args, **kwargs):
        super().add_scalar(*args, **kwargs)
        self.add_text("page", "x" * 5000)
        self.flush()


def test_pictures_reports_curves_and_lines_are_left_out(runner, options, small_disk, monkeypatch, capsys):
    """Full from iteration 4 to 8."""
    runner.root = small_disk
    filler = small_disk / "filler"
    step = SRModel.optimize_parameters

    def fill_and_step(self, iteration):
        if iteration == 4:
            with open(filler, "wb", buffering=0) as file:
                while True:
                    try:
                        file.write(bytes(512))
                    except OSError:
                        break
        if iteration == 9:
            filler.unlink()
        return step(self, iteration)

    monkeypatch.setattr(SRModel, "optimize_parameters", fill_and_step)
    monkeypatch.setattr(tensorboard_writer, "SummaryWriter", Flushed)
    monkeypatch.setattr(tensorboard_writer, "_WAIT", 0)
    folder = runner.train(options)
    assert (folder / "models" / "net_g_latest.pth").is_file()
    pictures = [path.name for path in (folder / "visualization").rglob("img.0_*.png")]
    assert sorted(int(re.search(r"_(\d+)\.png", name)[1]) for name in pictures) == [2, 10, 12]
    assert not [path for path in folder.rglob(".*") if path.is_file()], "no part of a file is left behind"
    printed = capsys.readouterr().err
    left_out = re.findall(r"The disk is full: the picture of img\.0 in val, like those after it, is not", printed)
    assert len(left_out) == 3  # at iterations 4, 6 and 8
    assert len(re.findall(r"Validation val\n", printed)) == 6, "each validation has its figures"
    assert "The disk is full: the report validation.* is not written" in printed
    assert "The disk is full: TensorBoard's curves" in printed and "There is space again" in printed
    assert "Lines are missing in the log" in printed
    assert "Logging error" not in printed


def test_one_rank_cannot_write_and_the_others_do_not_wait(launcher, options):
    full = launcher.root / "full_plugin.py"
    full.write_text(
        "import errno, os\n"
        "from basicsr.engine.evaluate import evaluator\n"
        "def imwrite(img, path, original=evaluator.imwrite):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "    original(img, path)\n"
        "evaluator.imwrite = imwrite\n"
    )
    options["imports"] = [str(full)]
    options["logger"]["use_tb_logger"] = False
    options["train"]["total_iter"] = 4
    runs = launcher.start_ranks(2, options)
    assert [run.wait() for run in runs] == [0, 0], runs[1].text[-2000:]
    pictures = launcher.root / "experiments" / "tiny" / "visualization"
    assert sorted(path.name for path in pictures.rglob("*_4.png")) == ["img.0_4.png", "img.2_4.png"]
    assert "The disk is full: the picture of img.1 in val" in runs[1].text


def test_a_test_whose_pictures_cannot_be_written_fails(runner, options, monkeypatch):
    """They are what it is for."""
    from basicsr.engine.evaluate import evaluator

    def full(img, path):
        raise OSError(28, "No space left on device")

    test_options = {key: options[key] for key in ("scale", "num_gpu", "manual_seed", "network_g", "name", "model_type")}
    test_options |= {"val": {"save_img": True}, "datasets": {"test_1": options["datasets"]["val"]}}
    weights = runner.root / "net.pth"
    torch.save({"params": runner.build(options).net_g.state_dict()}, weights)
    test_options["path"] = {"pretrain_network_g": str(weights)}
    monkeypatch.setattr(evaluator, "imwrite", full)
    with pytest.raises(OSError, match="No space left on device"):
        runner.test(test_options)
