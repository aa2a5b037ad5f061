"""The validation blocks of SIDD, which are published as two MATLAB files.

Abdelhamed et al., "A High-Quality Denoising Dataset for Smartphone Cameras", CVPR 2018: 32 blocks of 256×256 pixels
from each of 40 images, noisy and clean, as ``uint8 (40, 32, 256, 256, 3)``, RGB.
"""

from __future__ import annotations

import os

import numpy as np
from scipy.io import loadmat, whosmat

from .pairs import Pair, Part
from .tree import Tree

NOISY, CLEAN = "ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb"
_MAGIC, _MAGIC_HDF5 = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"


def validation_blocks(tree: Tree) -> dict[str, Part]:
    """The pairs of the validation blocks, one for each block, so that a metric is the mean over blocks.

    Block 2 of the first image is ``0001_02``.

    Args:
        tree: The folders that hold the two files.

    Returns:
        ``{"val": …}``, or nothing where neither file is there.

    Raises:
        ValueError: If one is missing, or is not what SIDD publishes.
    """
    found = {
        name[:-4].lower(): tree.path(folder, name)
        for folder, names in tree.files.items()
        for name in names
        if name.lower() in (f"{NOISY}.mat".lower(), f"{CLEAN}.mat".lower())
    }
    if not found:
        return {}
    for key in (NOISY, CLEAN):
        if key.lower() not in found:
            raise ValueError(f"{tree.root} holds {os.path.basename(*found.values())} and lacks {key}.mat")
    noisy, clean = (read_blocks(found[key.lower()], key) for key in (NOISY, CLEAN))
    if noisy.shape != clean.shape:
        raise ValueError(f"the noisy blocks are {noisy.shape} and the clean ones {clean.shape}; they must be the same")
    pairs = [
        Pair(f"{image + 1:04d}_{block + 1:02d}", noisy[image, block, ..., ::-1], clean[image, block, ..., ::-1])
        for image in range(noisy.shape[0])
        for block in range(noisy.shape[1])
    ]
    return {"val": Part(pairs, [])}


def read_blocks(path: str, key: str) -> np.ndarray:
    """Read the blocks of a MATLAB file.

    Args:
        path: The file.
        key: The name of the variable.

    Returns:
        uint8 ``(images, blocks, H, W, 3)``, RGB.

    Raises:
        ValueError: If it is not a MATLAB file, is of version 7.3, is damaged, or holds something else.
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(len(_MAGIC))
    if header == _MAGIC_HDF5:
        raise ValueError(f"{path} is a MATLAB 7.3 file (HDF5), which is not read; save it again with MATLAB's -v7")
    if header != _MAGIC:
        raise ValueError(f"{path} is not a MATLAB file: it begins with {header[:8]!r}; download it again")
    try:
        variables = {name: (shape, kind) for name, shape, kind in whosmat(path)}
    except Exception as error:  # SciPy raises errors of all kinds, among them IndexError
        raise ValueError(f"{path} is damaged or incomplete ({error}); download it again") from error
    if key not in variables:
        raise ValueError(f"{path} has no variable {key}, only {', '.join(variables) or 'none'}; it is not SIDD's")
    shape, kind = variables[key]
    if len(shape) != 5 or shape[-1] != 3 or 0 in shape or kind != "uint8":
        raise ValueError(f"{path}: {key} is {kind} {shape}; SIDD's blocks are uint8 (images, blocks, height, width, 3)")
    try:
        return loadmat(path, variable_names=[key])[key]
    except Exception as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}); download it again") from error
