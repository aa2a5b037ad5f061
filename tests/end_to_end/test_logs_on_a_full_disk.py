"""The log and TensorBoard's events on a full disk: said once, and the training goes on."""

import errno
import logging
import os
import re

import numpy as np
import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from basicsr.utils import logger as logger_module
from basicsr.utils.logger import LogFile, ScalarLog

# the thread of TensorBoard's own writer ends by the error, which it then tells its writer
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def full(monkeypatch):
    """A list; while there is something in it, no event can be written."""
    state = [True]
    original = RecordWriter.write

    def write(self, data):
        if state:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)
    return state


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_log_that_cannot_be_written_is_said_once(tmp_path, capsys):
    file = LogFile("/dev/full", encoding="utf-8")
    logger = logging.getLogger("full")
    logger.propagate = False
    logger.addHandler(file)
    try:
        for _ in range(5):
            logger.warning("a line")
        err = capsys.readouterr().err
        assert err.count("The log /dev/full cannot be written to for now: [Errno 28] No space left on device") == 1
        assert "Traceback" not in err
    finally:
        logger.removeHandler(file)
        file.close()
    assert "Traceback" not in capsys.readouterr().err


def test_events_that_cannot_be_written_are_said_once(tmp_path, full, log, monkeypatch):
    writer = ScalarLog(str(tmp_path))
    for step in range(2000):
        writer.add_scalar("losses/l_pix", 0.5, step)
    writer.close()
    assert log.text.count("TensorBoard's events cannot be written for now: [Errno 28]") == 1
    assert len(list(tmp_path.iterdir())) <= 1, "a new file is begun once a minute"


def test_events_are_written_again_once_there_is_space(tmp_path, full, monkeypatch):
    writer = ScalarLog(str(tmp_path))
    for step in range(2000):
        writer.add_scalar("tag", 0.5, step)
    full.clear()
    now = logger_module.time.monotonic()
    monkeypatch.setattr(logger_module.time, "monotonic", lambda: now + 61)
    writer.add_scalar("tag", 0.5, 2000)
    writer.add_image("image", np.zeros((3, 4, 4), "uint8"), 1)
    writer.close()
    assert max(file.stat().st_size for file in tmp_path.iterdir()) > 100


def test_the_training_goes_on(runner, options, full):
    options["logger"]["use_tb_logger"] = True
    folder = runner.train(options)
    (log,) = folder.glob("train_*.log")
    text = log.read_text()
    assert len(re.findall(r"iter: +\d+, lr", text)) == 12
    assert "End of training" in text and "TensorBoard's events cannot be written for now" in text
