"""Decode a folder of images into one file that training maps into memory; see docs/data_preparation.md."""

import sys

from _command import parser, run

from basicsr.data.memmap.writer import create_memmap


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, help="folder of images, searched with its sub-folders")
    arguments.add_argument("--output", required=True, help="the storage to make, a folder ending in .memmap")
    arguments.add_argument("--verify", action="store_true", help="compare the stored pixels with their checksums")
    args = arguments.parse_args()
    return run(lambda: create_memmap(args.input, args.output, args.num_workers, args.verify))


if __name__ == "__main__":
    sys.exit(main())
