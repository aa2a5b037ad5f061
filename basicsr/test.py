"""Test what an option file describes: ``python basicsr/test.py -opt options/test/….yml``."""

import sys
from pathlib import Path

if not __package__:  # run as a file: this checkout comes before any other basicsr that may be installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from os import path as osp

import torch.distributed as dist

from basicsr.data import build_dataloader, build_dataset
from basicsr.engine.report import markdown_table
from basicsr.models import build_model
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.logger import get_env_info, get_root_logger
from basicsr.utils.misc import get_time_str, make_exp_dirs
from basicsr.utils.options import OptionError, dict2str, parse_options
from basicsr.utils.paths import default_root


def test_pipeline(root_path: str) -> None:
    """Restore and measure every data set of the options.

    Args:
        root_path: The folder below which ``results`` lies.
    """
    opt, args = parse_options(root_path, is_train=False)
    make_exp_dirs(opt)
    if opt["dist"]:
        dist.barrier()  # the folders exist from here on
    logger = get_root_logger(log_file=osp.join(opt["path"]["log"], f"test_{opt['name']}_{get_time_str()}.log"))
    logger.info(get_env_info())
    logger.info(dict2str(opt))
    for notice in args.notices:
        logger.warning(notice)

    loaders = []
    for _, dataset_opt in sorted(opt["datasets"].items()):
        dataset = build_dataset(dataset_opt)
        loaders.append(build_dataloader(dataset, dataset_opt, opt["num_gpu"], opt["dist"], None, opt["manual_seed"]))
        logger.info(f"Number of test images in {dataset_opt['name']}: {len(dataset)}")
    model = build_model(opt)
    for loader in loaders:
        logger.info(f"Testing {loader.dataset.opt['name']}...")
        model.validation(loader, opt["name"], tb_logger=None, save_img=(opt.get("val") or {}).get("save_img", False))
    if any(result.values for result in model.results.values()):
        logger.info("Results\n" + markdown_table(list(model.results.values())) + "\n")
    if opt["dist"]:
        dist.barrier()
        dist.destroy_process_group()


test_pipeline.__test__ = False  # not a test, whatever pytest makes of the name


def main() -> None:
    """Run :func:`test_pipeline`; wrong options are told in sentences, without a traceback."""
    try:
        test_pipeline(default_root())
    except OptionError as error:
        if get_dist_info()[0] == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
