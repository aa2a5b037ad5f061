"""Helpers under the names that BasicSR's users import; each is loaded from its module when first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "bgr2ycbcr": "color_util",
    "rgb2ycbcr": "color_util",
    "rgb2ycbcr_pt": "color_util",
    "ycbcr2bgr": "color_util",
    "ycbcr2rgb": "color_util",
    "FileClient": "file_client",
    "crop_border": "img_util",
    "imfrombytes": "img_util",
    "img2tensor": "img_util",
    "imwrite": "img_util",
    "tensor2img": "img_util",
    "imresize": "matlab_functions",
    "AvgTimer": "logger",
    "MessageLogger": "logger",
    "get_env_info": "logger",
    "get_root_logger": "logger",
    "init_tb_logger": "logger",
    "init_wandb_logger": "logger",
    "check_resume": "misc",
    "get_time_str": "misc",
    "make_exp_dirs": "misc",
    "mkdir_and_rename": "misc",
    "scandir": "misc",
    "set_random_seed": "misc",
    "sizeof_fmt": "misc",
    "yaml_load": "options",
    "dict2str": "options",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
