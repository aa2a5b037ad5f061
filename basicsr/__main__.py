"""``python -m basicsr <command>``."""

import sys

from basicsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
