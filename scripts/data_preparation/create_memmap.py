"""Decode a folder of images into one file that training maps into memory; see docs/data_preparation.md."""

import sys

from _checkout import run_step

if __name__ == "__main__":
    sys.exit(run_step("memmap"))
