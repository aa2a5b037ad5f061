"""Test what an option file describes: ``python basicsr/test.py -opt options/test/….yml``."""

import sys
from pathlib import Path

if not __package__:  # run as a file: this checkout comes before any other basicsr that may be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.openmp import limit_spinning

if "torch" not in sys.modules:
    limit_spinning()

import os
from os import path as osp

import torch.distributed as dist

from basicsr.engine.evaluate.report import markdown_table
from basicsr.engine.run.host_memory import disable_malloc_trim
from basicsr.engine.run.launch import launch, starting
from basicsr.engine.run.peers import coordinated_exit
from basicsr.engine.run.run_lock import RunLock, require_free
from basicsr.start import TestRun, build_test
from basicsr.utils.held_log import HeldLog, hold_log
from basicsr.utils.logger import get_root_logger
from basicsr.utils.misc import get_time_str
from basicsr.utils.options import parse_options


def open_run(opt: dict, log: HeldLog) -> None:
    """Make the run's folders and log, now that it can start."""
    if opt["rank"] == 0:
        os.makedirs(opt["path"]["visualization"], exist_ok=True)
    if opt["dist"]:
        dist.barrier()  # the folders exist from here on
    log.write_to(osp.join(opt["path"]["log"], f"test_{opt['name']}_{get_time_str()}.log"))


def test_pipeline(root_path: str) -> None:
    """Restore and measure every data set of the options.

    Args:
        root_path: The folder below which ``results`` lies.
    """
    disable_malloc_trim()
    opt, args = parse_options(root_path, is_train=False)
    folder = opt["path"]["results_root"]
    with coordinated_exit() as progress, hold_log() as log:
        with starting():
            require_free(folder)
            test = build_test(opt, args.notices)
            progress.ready()
            lock = RunLock(folder, is_new=True)
        with lock:
            progress.start()
            open_run(opt, log)
            run(opt, test)


def run(opt: dict, test: TestRun) -> None:
    """Measure one data set after the other."""
    model, logger = test.model, get_root_logger()
    for loader in test.loaders:
        logger.info(f"Testing {loader.dataset.opt['name']}...")
        save_img = (opt.get("val") or {}).get("save_img", False)
        model.validation(loader, opt["name"], tb_logger=None, save_img=save_img)
    if any(result.values for result in model.results.values()):
        logger.info("Results\n" + markdown_table(list(model.results.values())) + "\n")


test_pipeline.__test__ = False  # not a test, whatever pytest makes of the name


def main() -> None:
    """Run :func:`test_pipeline` as a program."""
    launch(test_pipeline)


if __name__ == "__main__":
    main()
