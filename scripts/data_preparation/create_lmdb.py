"""Store a folder of images in an LMDB; see docs/data_preparation.md."""

import sys

from _checkout import run_step

if __name__ == "__main__":
    sys.exit(run_step("lmdb"))
