"""Make LR images from a folder of GT images by MATLAB's bicubic; see docs/data_preparation.md."""

import sys

from _command import parser, run

from basicsr.data.preparation import make_lr


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, help="folder of GT images")
    arguments.add_argument("--output", required=True, help="folder to make; holds a folder X<scale> for each scale")
    arguments.add_argument("--scale", type=int, nargs="+", default=[2, 3, 4], help="the factors (default 2 3 4)")
    arguments.add_argument(
        "--filename-tmpl", default="{}x{scale}", help="the LR name from the GT name (default '{}x{scale}')"
    )
    arguments.add_argument(
        "--gt-output", help="write GT cut to a multiple of all scales here, and make LR from that (for training sets)"
    )
    args = arguments.parse_args()
    return run(
        lambda: make_lr(
            args.input,
            args.output,
            args.scale,
            filename_tmpl=args.filename_tmpl,
            gt_output_folder=args.gt_output,
            num_workers=args.num_workers,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
