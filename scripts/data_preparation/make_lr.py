"""Make LR images from a folder of GT images by MATLAB's bicubic; see docs/data_preparation.md."""

import sys

from _checkout import run_step

if __name__ == "__main__":
    sys.exit(run_step("lr"))
