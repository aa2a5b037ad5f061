"""Cut a folder of large images into overlapping sub-images, which load faster; see docs/data_preparation.md."""

import sys

from _checkout import run_step

if __name__ == "__main__":
    sys.exit(run_step("subimages"))
