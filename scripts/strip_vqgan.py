"""Reduce a VQGAN's checkpoint to encoder, quant_conv and codebook; see docs/vqgan.md."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout itself is what is imported

from basicsr.archs.vqgan_checkpoint import strip_checkpoint


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--input", required=True, help="the checkpoint, such as Lightning's last.ckpt")
    arguments.add_argument("--output", required=True, help="the file to write, .pth or .safetensors")
    args = arguments.parse_args()
    try:
        print(strip_checkpoint(args.input, args.output))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
