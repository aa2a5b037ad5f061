"""Pairs of LQ and GT images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from basicsr.utils.options import sections
from basicsr.utils.registry import DATASET_REGISTRY

from .image_folders import Folders, image_pairs
from .pair_advice import advice_on_sizes
from .patch_schedule import gt_size_of
from .storage import ImageStorage
from .to_tensor import ToTensor
from .transforms import Augmentation, paired_padding, paired_random_crop


@DATASET_REGISTRY.register()
class PairedImageDataset(Dataset):
    """LQ and GT images for restoration: aligned, GT ``scale`` times larger.

    The pairs come from the two databases with ``io_backend: {type: lmdb}``, else from ``meta_info_file`` where it is
    given, else from the two folders (of files, or of decoded images with ``io_backend: {type: memmap}``); lists of
    folders or databases are matched one by one. A training sample is a random crop, randomly flipped and rotated; an
    evaluation sample is the whole image, GT cut at the bottom and right to ``scale`` times LQ.

    Args:
        opt: The dataset's section; see :class:`Options`. ``phase`` must be given.

    Attributes:
        opt: The section.
        paths: For each pair ``lq_path`` and ``gt_path``: files, or keys of the databases.
        io_backend_opt, mean, std, filename_tmpl: What the section says, as BasicSR's plug-ins read it.
        file_client: None; a plug-in's own ``__getitem__`` makes one from ``io_backend_opt``.
        gt_folder, lq_folder: The folders, databases or storages.

    Raises:
        ValueError: If images lack partners, there are none, or ``gt_size`` is missing for training.
        FileNotFoundError: If a folder or the meta_info file does not exist.
    """

    class Options(sections.ProgressiveOptions):
        required_for_training: ClassVar[tuple[str, ...]] = (
            *sections.ProgressiveOptions.required_for_training,
            "gt_size",
        )
        dataroot_gt: Folders
        """Folder, LMDB or decoded storage of the GT images, or a list of them."""
        dataroot_lq: Folders
        """Folder, LMDB or decoded storage of the LQ images, or a list as long as that of GT, matched one by one."""
        meta_info_file: str | None = None
        """Lists the GT images to use, but not with LMDB; all of the folder when absent."""
        filename_tmpl: str = "{}"
        """LQ's file name from GT's, both without extension: `{}x4`."""
        pad_small: bool = False
        """Extend training images that are smaller than a crop by reflection at the bottom and right, as the datasets of
        Restormer and NAFNet do; refused when false."""
        use_hflip: bool = False
        """Flip training crops horizontally at random."""
        use_rot: bool = False
        """Flip training crops vertically and transpose them at random."""
        geometric_augs: bool = False
        """Restormer's key for both: one of the eight flips and rotations, all equally likely."""
        color: Literal["y", "n"] | None = None
        """`y`: luma (BT.601, 16-235) as the only channel; RGB for `n` or when absent."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt, self._options = opt, self.Options.of(opt)
        self._scale = self._options.scale or 1
        self._training = opt["phase"] == "train"
        if self._training and self._options.gt_size is None:
            raise ValueError(
                f"Dataset {self._options.name or 'unnamed'}: training needs gt_size, the side of a crop of GT."
            )
        folders = {"lq": opt["dataroot_lq"], "gt": opt["dataroot_gt"]}
        self._storage = ImageStorage(self._options.io_backend, folders)
        self._to_tensor = ToTensor(self._options.color == "y", self._options.mean, self._options.std)
        self.gt_folder, self.lq_folder = folders["gt"], folders["lq"]
        self.io_backend_opt = self._storage.client_options()
        self.file_client = None
        self.mean, self.std = self._options.mean, self._options.std
        self.filename_tmpl = self._options.filename_tmpl
        self.paths = image_pairs(
            *folders.values(), self.io_backend_opt["type"], self._options.meta_info_file, self.filename_tmpl
        )

        if self._training and self._options.gt_sizes and not self._options.pad_small:
            gt_paths = [paths["gt_path"] for paths in self.paths]
            self._storage.require_room_for(max(self._options.gt_sizes), gt_paths, "gt", "or set pad_small: true")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A pair.

        Returns:
            ``lq`` (C, h, w) and ``gt`` (C, h·scale, w·scale), RGB in [0, 1] before normalisation, and ``lq_path`` and
            ``gt_path``, as in ``paths``.

        Raises:
            ValueError: If an image is damaged, their sizes do not fit each other, or a crop does not fit; the message
                names the file.
        """
        gt, lq, paths = self._views(index)
        return {"lq": self._to_tensor(lq), "gt": self._to_tensor(gt), **paths}

    def read_batch(self, indices: Sequence[int], seed_sample: Callable[[int], None]) -> dict[str, Any]:
        """A batch of training samples, exactly those of ``__getitem__``, each written straight into its place.

        Args:
            indices: The samples.
            seed_sample: Seeds ``random`` for the sample of an index.

        Returns:
            ``lq`` (B, C, h, w), ``gt`` (B, C, H, W), and lists ``lq_path`` and ``gt_path``.
        """
        gt_size = gt_size_of(indices[0], self._options.gt_size)
        lq, gt = (
            _new_batch(len(indices), self._to_tensor.channels, side) for side in (gt_size // self._scale, gt_size)
        )
        lq_rows, gt_rows = lq.numpy(), gt.numpy()
        lq_paths, gt_paths = [], []
        for row, index in enumerate(indices):
            seed_sample(index)
            gt_view, lq_view, paths = self._views(index)
            self._to_tensor.write(gt_view, gt_rows[row])
            self._to_tensor.write(lq_view, lq_rows[row])
            lq_paths.append(paths["lq_path"])
            gt_paths.append(paths["gt_path"])
        return {"lq": lq, "gt": gt, "lq_path": lq_paths, "gt_path": gt_paths}

    def _views(self, index: int) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        """GT and LQ of a sample, cropped and augmented, with values as stored, and their paths."""
        paths = self.paths[index]
        gt = self._storage.read(paths["gt_path"], "gt")
        lq = self._storage.read(paths["lq_path"], "lq")
        if not self._training:
            return _crop_gt_to_lq(gt, lq, self._scale, paths), lq, paths
        options = self._options
        gt_size = gt_size_of(index, options.gt_size)
        if options.pad_small:
            gt, lq = paired_padding(gt, lq, gt_size, self._scale, paths["gt_path"])
        gt, lq = paired_random_crop(gt, lq, gt_size, self._scale, paths["gt_path"])
        augmentation = Augmentation.draw(options.use_hflip, options.use_rot, options.geometric_augs)
        # Copy the crop first, then augment it: reading scattered rows in another order takes half as long again.
        return augmentation.apply(np.ascontiguousarray(gt)), augmentation.apply(np.ascontiguousarray(lq)), paths


def _new_batch(size: int, channels: int, side: int) -> torch.Tensor:
    """An empty batch; a worker's is in shared memory, so that it need not be copied there."""
    batch = torch.empty(size, channels, side, side)
    return batch if get_worker_info() is None else batch.share_memory_()


def _crop_gt_to_lq(gt: np.ndarray, lq: np.ndarray, scale: int, paths: dict[str, str]) -> np.ndarray:
    """Cut what GT has at the bottom and right beyond ``scale`` times LQ; less than one LQ size, or LQ is another's."""
    (gt_height, gt_width), (height, width) = gt.shape[:2], lq.shape[:2]
    if (gt_height // height, gt_width // width) != (scale, scale):
        raise ValueError(
            f"GT {paths['gt_path']} is {gt_height}×{gt_width} pixels (height×width) and LQ {paths['lq_path']} "
            f"{height}×{width}; at scale {scale} GT must be at least {height * scale}×{width * scale}, and hardly "
            f"more. {advice_on_sizes((gt_height, gt_width), (height, width), scale)}"
        )
    return gt[: height * scale, : width * scale]
