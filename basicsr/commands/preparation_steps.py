"""Single steps of preparing a folder of images, as commands: ``basicsr prepare subimages`` and its like."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from basicsr.data.memmap.writer import create_memmap
from basicsr.data.preparation import create_lmdb, extract_subimages, generate_meta_info, make_lr


class Step(NamedTuple):
    """A step: what it does, its options, and the call, which returns a line for each unusable image."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], list[str] | None]


def _add_subimages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="folder of images")
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--crop-size", type=int, default=480, help="side of a sub-image in pixels (default 480)")
    parser.add_argument("--step", type=int, default=240, help="distance between neighbours (default 240)")
    parser.add_argument(
        "--thresh-size", type=int, default=0, help="largest rest at the border to leave out, in pixels (default 0)"
    )
    parser.add_argument(
        "--filename-tmpl", default="{}", help="'{}x4' drops a final x4 from the names, so that LR is called like GT"
    )
    parser.add_argument("--compression-level", type=int, default=3, help="of PNG, 0 to 9 (default 3)")


def _subimages(args: argparse.Namespace) -> list[str]:
    return extract_subimages(
        args.input,
        args.output,
        args.crop_size,
        args.step,
        thresh_size=args.thresh_size,
        filename_tmpl=args.filename_tmpl,
        compression_level=args.compression_level,
        num_workers=args.num_workers,
    )


def _add_lr(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="folder of GT images")
    parser.add_argument("--output", required=True, help="folder to make; holds a folder X<scale> for each scale")
    parser.add_argument("--scale", type=int, nargs="+", default=[2, 3, 4], help="the factors (default 2 3 4)")
    parser.add_argument(
        "--filename-tmpl", default="{}x{scale}", help="the LR name from the GT name (default '{}x{scale}')"
    )
    parser.add_argument(
        "--gt-output", help="write GT cut to a multiple of all scales here, and make LR from that (for training sets)"
    )


def _lr(args: argparse.Namespace) -> list[str]:
    return make_lr(
        args.input,
        args.output,
        args.scale,
        filename_tmpl=args.filename_tmpl,
        gt_output_folder=args.gt_output,
        num_workers=args.num_workers,
    )


def _add_meta_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="folder of images, searched with its sub-folders")
    parser.add_argument("--output", required=True, help="the meta_info file to write")


def _add_lmdb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="folder of images")
    parser.add_argument("--output", required=True, help="the database to make, a folder ending in .lmdb")
    parser.add_argument("--compress-level", type=int, default=1, help="of PNG, 0 to 9 (default 1)")


def _add_memmap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="folder of images, searched with its sub-folders")
    parser.add_argument("--output", required=True, help="the storage to make, a folder ending in .memmap")
    parser.add_argument("--verify", action="store_true", help="compare the stored pixels with their checksums")


STEPS = {
    "subimages": Step(
        "cut a folder of large images into overlapping sub-images, which load faster", _add_subimages, _subimages
    ),
    "lr": Step("make LR images from a folder of GT images by MATLAB's bicubic", _add_lr, _lr),
    "meta-info": Step(
        "list a folder of images in a meta_info file",
        _add_meta_info,
        lambda args: generate_meta_info(args.input, args.output, args.num_workers),
    ),
    "lmdb": Step(
        "store a folder of images in an LMDB",
        _add_lmdb,
        lambda args: create_lmdb(args.input, args.output, args.compress_level, args.num_workers),
    ),
    "memmap": Step(
        "decode a folder of images into one file that training maps into memory",
        _add_memmap,
        lambda args: create_memmap(args.input, args.output, args.num_workers, args.verify),
    ),
}
"""Name → step."""
