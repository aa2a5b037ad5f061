"""List a folder of images in a meta_info file; see docs/data_preparation.md."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from basicsr.data.preparation import generate_meta_info, parser, run


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--input", required=True, help="folder of images, searched with its sub-folders")
    arguments.add_argument("--output", required=True, help="the meta_info file to write")
    args = arguments.parse_args()
    return run(lambda: generate_meta_info(args.input, args.output, args.num_workers))


if __name__ == "__main__":
    sys.exit(main())
