"""Helpers under the names that BasicSR's users import; each is imported on first use."""

from __future__ import annotations

from .lazy import lazy_members

_names, __getattr__, __dir__ = lazy_members(
    __name__,
    {
        "color_util": ["bgr2ycbcr", "rgb2ycbcr", "rgb2ycbcr_pt", "ycbcr2bgr", "ycbcr2rgb"],
        "file_client": ["FileClient"],
        "img_util": ["crop_border", "imfrombytes", "img2tensor", "imwrite", "tensor2img"],
        "logger": [
            "AvgTimer",
            "MessageLogger",
            "get_env_info",
            "get_root_logger",
            "init_tb_logger",
            "init_wandb_logger",
        ],
        "matlab_functions": ["imresize"],
        "misc": [
            "check_resume",
            "get_time_str",
            "make_exp_dirs",
            "mkdir_and_rename",
            "scandir",
            "set_random_seed",
            "sizeof_fmt",
        ],
        "options": ["dict2str", "yaml_load"],
    },
)

__all__ = list(_names)
