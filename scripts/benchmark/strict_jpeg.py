"""Measure what the strict check of JPEG files costs and finds, and print a Markdown table.

    python scripts/benchmark/strict_jpeg.py [--rounds 15] [--damaged 250]

The images are photographs bundled with scikit-image, of quality 95, whole and as crops of 480×480. Times are the CPU
time of one image on one thread, the shortest of the rounds. For what the check finds, 64 bytes in the middle of each
file are replaced at random.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
from skimage import data

from basicsr.data.storage import decode
from basicsr.utils.image_check import require_sound_jpeg

PHOTOGRAPHS = ("retina", "hubble_deep_field", "immunohistochemistry", "astronaut", "coffee")
DAMAGE = 64  # bytes


def milliseconds(function: Callable[[bytes], object], content: bytes, rounds: int) -> float:
    """The shortest of several calls, in CPU time."""
    durations = []
    for _ in range(rounds):
        start = time.process_time()
        function(content)
        durations.append(time.process_time() - start)
    return min(durations) * 1e3


def refuses(function: Callable[[bytes], object], content: bytes) -> bool:
    try:
        function(content)
    except ValueError:
        return True
    return False


def found(files: list[bytes], count: int) -> tuple[int, int]:
    """How many of ``count`` damaged files the decoder of the data sets refuses, and how many it refuses when strict."""
    rng = np.random.default_rng(0)
    plain = strict = 0
    for number in range(count):
        content = bytearray(files[number % len(files)])
        start = int(len(content) * rng.uniform(0.2, 0.9))
        content[start : start + DAMAGE] = rng.bytes(DAMAGE)
        plain += refuses(lambda c: decode(c, strict=False), bytes(content))
        strict += refuses(decode, bytes(content))
    return plain, strict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--damaged", type=int, default=250)
    args = parser.parse_args()
    cv2.setNumThreads(0)
    images = [np.ascontiguousarray(getattr(data, name)()[..., 2::-1]) for name in PHOTOGRAPHS]
    crops = [image[:480, :480] for image in images if min(image.shape[:2]) >= 480]
    print("| image | KiB | decoding, ms | strict check, ms | more |\n|---|---:|---:|---:|---:|")
    files = []
    for image in [images[0], images[1], *crops[:3]]:
        content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        files.append(content)
        plain = milliseconds(lambda c: decode(c, strict=False), content, args.rounds)
        check = milliseconds(require_sound_jpeg, content, args.rounds)
        size = "×".join(map(str, image.shape[1::-1]))
        print(f"| {size} | {len(content) / 1024:.0f} | {plain:.2f} | {check:.2f} | {check / plain:.0%} |")
    plain, strict = found(files, args.damaged)
    print(f"\nOf {args.damaged} damaged files, {plain} are refused without the check, and {strict} with it.")


if __name__ == "__main__":
    main()
