"""A data set of clean images with Gaussian noise, for the denoising tests in ``options/test``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset

from basicsr.data.data_util import paths_from_folder
from basicsr.utils.img_util import imread
from basicsr.utils.options import sections
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class NoisyImageDataset(Dataset):
    """Clean images and noisy copies of them, made as the authors of DnCNN and FFDNet make them for their tables.

    White Gaussian noise is added to the image in [0, 1]. It is neither clipped nor rounded to 8 bits, and NumPy's
    generator is seeded anew for each image (github.com/cszn/KAIR, ``main_test_ffdnet.py``).

    Args:
        opt: The dataset's section; see :class:`Options`.
    """

    class Options(sections.DatasetOptions):
        dataroot_gt: str
        """Folder of the clean images."""
        sigma: Annotated[float, Field(ge=0, le=255)] = 25.0
        """Standard deviation of the noise, in [0, 255]."""
        noise_seed: Annotated[int, Field(ge=0)] = 0
        """Seed of each image's noise."""
        channels: Literal[1, 3] = 3
        """1: grey (OpenCV's weighting of the colours); 3: RGB."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt, self._options = opt, self.Options.of(opt)
        self.paths = paths_from_folder(self._options.dataroot_gt)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``lq`` and ``gt`` (C, H, W), ``gt`` in [0, 1], and the path."""
        path = self.paths[index]
        clean = imread(path, "color" if self._options.channels == 3 else "grayscale", float32=True)
        clean = clean[..., ::-1] if clean.ndim == 3 else clean[..., None]
        noise = np.random.RandomState(self._options.noise_seed).normal(0, self._options.sigma / 255, clean.shape)
        gt, lq = (
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
            for image in (clean, clean + noise)
        )
        return {"lq": lq, "gt": gt, "lq_path": path, "gt_path": path}
