"""List a folder of images in a meta_info file; see docs/data_preparation.md."""

import sys

from _command import parser, run

from basicsr.data.preparation import generate_meta_info


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, help="folder of images, searched with its sub-folders")
    arguments.add_argument("--output", required=True, help="the meta_info file to write")
    args = arguments.parse_args()
    return run(lambda: generate_meta_info(args.input, args.output, args.num_workers))


if __name__ == "__main__":
    sys.exit(main())
