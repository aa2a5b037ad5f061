"""Store a folder of images in an LMDB; see docs/data_preparation.md."""

import sys

from _command import parser, run

from basicsr.data.preparation import create_lmdb


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, help="folder of images")
    arguments.add_argument("--output", required=True, help="the database to make, a folder ending in .lmdb")
    arguments.add_argument("--compress-level", type=int, default=1, help="of PNG, 0 to 9 (default 1)")
    args = arguments.parse_args()
    return run(lambda: create_lmdb(args.input, args.output, args.compress_level, args.num_workers))


if __name__ == "__main__":
    sys.exit(main())
