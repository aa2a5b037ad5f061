"""Files that cannot be written since the disk is full."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from basicsr.utils import tensorboard_writer
from basicsr.utils.full_disk import is_disk_full, tolerate_full_disk
from basicsr.utils.img_util import imwrite
from basicsr.utils.logger import get_root_logger
from basicsr.utils.tensorboard_writer import TensorBoardWriter

ROOT = Path(__file__).resolve().parents[2]
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def log(caplog, monkeypatch):
    """What is logged from here on."""
    monkeypatch.setattr(get_root_logger(), "propagate", True)
    caplog.set_level(logging.INFO, "basicsr")
    return caplog


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_image_says_why_it_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"^cannot write the image .*a\.png: No space left on device$") as error:
        imwrite(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")
    assert error.value.errno == errno.ENOSPC and is_disk_full(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_known_through_other_errors():
    try:
        try:
            full()
        except OSError as error:
            raise RuntimeError("writing failed") from error
    except RuntimeError as error:
        assert is_disk_full(error)
    assert is_disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not is_disk_full(OSError("No space left on device"))  # words are not looked at
    assert not is_disk_full(PermissionError(errno.EACCES, "Permission denied"))
    assert not is_disk_full(None)


def test_only_a_full_disk_is_tolerated(log):
    with tolerate_full_disk("the picture a.png"):
        full()
    (record,) = log.records
    assert record.levelname == "ERROR"
    assert record.message.startswith("The disk is full: the picture a.png is not written (")
    with pytest.raises(PermissionError), tolerate_full_disk("x"):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(OSError, match="No space"), tolerate_full_disk("x", when=False):
        full()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
def test_a_log_that_cannot_be_written_is_reported_once():
    code = (
        "from basicsr.utils.logger import get_root_logger\n"
        "logger = get_root_logger(log_file='/dev/full')\n"
        "for line in range(300):\n    logger.info(f'line {line} ' + 'x' * 100)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert "line 299" in result.stderr and "Traceback" not in result.stderr
    assert result.stderr.count("Lines are missing in the log /dev/full from here on: [Errno 28] No space left") == 1


class Writer(SummaryWriter):
    """A writer whose methods fail while the disk is full."""

    full = False
    opened = 0

    def __init__(self, log_dir):
        type(self).opened += 1
        super().__init__(log_dir=log_dir)

    def add_scalar(self, *args, **kwargs):
        if self.full:
            full()
        super().add_scalar(*args, **kwargs)


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr(tensorboard_writer, "SummaryWriter", Writer)
    monkeypatch.setattr(Writer, "opened", 0)
    monkeypatch.setattr(Writer, "full", False)
    return Writer


def scalars(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.step for event in events.Scalars("loss")]


def test_curves_have_a_gap_and_go_on(tmp_path, writer, log, monkeypatch):
    monkeypatch.setattr(tensorboard_writer, "_WAIT", 0)
    curves = TensorBoardWriter(str(tmp_path))
    for step in range(6):
        writer.full = step in (2, 3)
        curves.add_scalar("loss", 1.0, step)
    curves.close()
    assert scalars(tmp_path) == [0, 1, 4, 5]
    messages = [f"{record.levelname}: {record.message}" for record in log.records]
    assert messages[0].startswith("ERROR: The disk is full: TensorBoard's curves in ")
    assert messages[-1].startswith("INFO: There is space again")


def test_nothing_is_opened_while_there_is_no_space(tmp_path, writer, log, monkeypatch):
    monkeypatch.setattr(tensorboard_writer, "_WAIT", 0)
    curves = TensorBoardWriter(str(tmp_path))
    writer.full = True
    curves.add_scalar("loss", 1.0, 0)
    monkeypatch.setattr(tensorboard_writer, "_SPACE", 1 << 60)
    for step in range(20):
        curves.add_scalar("loss", 1.0, step)
    curves.flush()
    curves.close()
    assert writer.opened == 1 and len(log.records) == 1


def test_other_errors_and_methods(tmp_path):
    curves = TensorBoardWriter(str(tmp_path))
    assert curves.log_dir == str(tmp_path)
    curves.add_image("picture", np.zeros((3, 4, 4)), 0)
    with pytest.raises(AttributeError, match="has no method 'add_nothing'"):
        _ = curves.add_nothing
    with pytest.raises(TypeError):
        curves.add_scalar()
    curves.close()
