"""The steps of ``basicsr prepare``, from the checkout that this file is in, whatever else is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from basicsr.commands.prepare import run_step

__all__ = ["run_step"]
