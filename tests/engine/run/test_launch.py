"""How a program ends: the exit code and what it prints for each kind of error, with a log file and without."""

import re

import pytest

from basicsr.engine.run import launch as module
from basicsr.engine.run.launch import launch
from basicsr.engine.run.signals import RunStopped
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options import OptionError
from basicsr.utils.paths import default_root
from basicsr.utils.rendezvous import LaunchError

from ...helpers import REPOSITORY

MENDABLE = {
    ValueError("the patch is too large"): "the patch is too large",
    KeyError("no network 'x'"): "no network 'x'",  # and not in further quotation marks
    KeyError(): "",
    OSError(2, "No such file", "a.png"): "[Errno 2] No such file: 'a.png'",
    ImportError("wandb is not installed"): "wandb is not installed",
    FloatingPointError("l_pix was not finite"): "l_pix was not finite",
}


@pytest.fixture
def log_file(tmp_path):
    """The run's log has been opened."""
    file = tmp_path / "train.log"
    get_root_logger(log_file=str(file))
    return file


@pytest.fixture
def end(capsys):
    """What ``launch`` does with a pipeline that raises an error: its exit code, and what is on the screen."""

    def run(error):
        def pipeline(root):
            raise error

        with pytest.raises(SystemExit) as exit:
            launch(pipeline)
        assert exit.value.code in documented_codes()
        return exit.value.code, capsys.readouterr().err

    return run


def documented_codes():
    text = (REPOSITORY / "docs" / "resume.md").read_text(encoding="utf-8")
    table = re.search(r"^\| exit code \|.*\n\|.*\n((?:\|.*\n)+)", text, re.M)[1]
    return {int(code) for row in table.splitlines() for code in re.findall(r"\d+", row.split("|")[1])}


def test_a_pipeline_that_ends_well_gets_the_root():
    roots = []
    assert launch(roots.append) is None
    assert roots == [default_root()]


@pytest.mark.parametrize("logged", [True, False])
def test_wrong_options(end, request, logged):
    """Though an OptionError is a ValueError, nothing is wrong with the program."""
    log = request.getfixturevalue("log_file") if logged else None
    assert end(OptionError("scale: must be 1 or more")) == (2, "error: scale: must be 1 or more\n")
    assert not logged or log.read_text() == ""


def test_wrong_options_are_told_by_rank_0_alone(end, monkeypatch):
    monkeypatch.setattr(module, "get_dist_info", lambda: (1, 2))
    assert end(OptionError("scale: must be 1 or more")) == (2, "")


@pytest.mark.parametrize(("error", "text"), MENDABLE.items(), ids=lambda value: type(value).__name__)
def test_an_error_that_can_be_mended_is_a_sentence_and_its_traceback_is_logged(end, log_file, error, text):
    assert end(error) == (1, f"error: {text}\n(The traceback is in the run's log file.)\n")
    log = log_file.read_text()
    assert "ERROR: The run ended with an error.\nTraceback (most recent call last):\n" in log
    assert f"\n{type(error).__name__}" in log and "in pipeline" in log


@pytest.mark.parametrize("error", MENDABLE, ids=lambda error: type(error).__name__)
def test_without_a_log_file_it_keeps_its_traceback(error):
    def pipeline(root):
        raise error

    with pytest.raises(type(error)) as raised:
        launch(pipeline)
    assert raised.value is error


def test_processes_that_did_not_come_together(end, log_file):
    assert end(LaunchError("rank 1 did not join")) == (1, "error: rank 1 did not join\n")
    assert log_file.read_text() == ""


def test_ctrl_c_where_there_is_nothing_to_save(end):
    assert end(KeyboardInterrupt()) == (130, "Interrupted; nothing had to be saved.\n")


def test_a_run_that_was_stopped_and_saved(end, log_file):
    assert end(RunStopped(75)) == (75, "")
    assert log_file.read_text() == ""


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), AssertionError("never"), TypeError("no tensor")])
def test_an_error_of_the_program_itself_is_left_alone(log_file, error):
    """Python prints its traceback, and exits with 1."""

    def pipeline(root):
        raise error

    with pytest.raises(type(error)) as raised:
        launch(pipeline)
    assert raised.value is error
    assert log_file.read_text() == ""
