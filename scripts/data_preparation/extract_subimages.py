"""Cut a folder of large images into overlapping sub-images, which load faster; see docs/data_preparation.md."""

import sys

from _command import parser, run

from basicsr.data.preparation import extract_subimages


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, help="folder of images")
    arguments.add_argument("--output", required=True, help="folder to make")
    arguments.add_argument("--crop-size", type=int, default=480, help="side of a sub-image in pixels (default 480)")
    arguments.add_argument("--step", type=int, default=240, help="distance between neighbours (default 240)")
    arguments.add_argument(
        "--thresh-size",
        type=int,
        default=0,
        help="largest rest at the border to leave out, in pixels (default 0)",
    )
    arguments.add_argument(
        "--filename-tmpl", default="{}", help="'{}x4' drops a final x4 from the names, so that LR is called like GT"
    )
    arguments.add_argument("--compression-level", type=int, default=3, help="of PNG, 0 to 9 (default 3)")
    args = arguments.parse_args()
    return run(
        lambda: extract_subimages(
            args.input,
            args.output,
            args.crop_size,
            args.step,
            thresh_size=args.thresh_size,
            filename_tmpl=args.filename_tmpl,
            compression_level=args.compression_level,
            num_workers=args.num_workers,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
