"""Test what an option file describes: ``python basicsr/test.py -opt options/test/….yml``."""

import sys
from pathlib import Path

if not __package__:  # run as a file: this checkout comes before any other basicsr that may be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.openmp import limit_spinning

if "torch" not in sys.modules:
    limit_spinning()

from os import path as osp
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader

from basicsr.data import build_dataloader, build_dataset
from basicsr.engine.evaluate.report import markdown_table
from basicsr.engine.run.host_memory import disable_malloc_trim
from basicsr.engine.run.launch import launch
from basicsr.engine.run.peers import coordinated_exit
from basicsr.models import build_model
from basicsr.utils.logger import get_env_info, get_root_logger
from basicsr.utils.misc import get_time_str, make_exp_dirs
from basicsr.utils.options import dict2str, parse_options


def prepare_run(opt: dict, args: Any) -> None:
    """Make the run's folders and log."""
    make_exp_dirs(opt)
    if opt["dist"]:
        dist.barrier()  # the folders exist from here on
    logger = get_root_logger(log_file=osp.join(opt["path"]["log"], f"test_{opt['name']}_{get_time_str()}.log"))
    logger.info(get_env_info())
    logger.info(dict2str(opt))
    for notice in args.notices:
        logger.warning(notice)


def create_test_dataloaders(opt: dict) -> list[DataLoader]:
    """The loaders of all data sets, in the order of their sections' names."""
    loaders = []
    for _, dataset_opt in sorted(opt["datasets"].items()):
        dataset = build_dataset(dataset_opt)
        loaders.append(build_dataloader(dataset, dataset_opt, opt["num_gpu"], opt["dist"], None, opt["manual_seed"]))
        get_root_logger().info(f"Number of test images in {dataset_opt['name']}: {len(dataset)}")
    return loaders


def test_pipeline(root_path: str) -> None:
    """Restore and measure every data set of the options.

    Args:
        root_path: The folder below which ``results`` lies.
    """
    disable_malloc_trim()
    opt, args = parse_options(root_path, is_train=False)
    with coordinated_exit():
        prepare_run(opt, args)
        loaders = create_test_dataloaders(opt)
        model = build_model(opt)
        logger = get_root_logger()
        for loader in loaders:
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
