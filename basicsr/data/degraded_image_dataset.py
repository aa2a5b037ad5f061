"""Clean images, degraded when they are read."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import MinLen
from pydantic import Field, ValidationError
from torch.utils.data import Dataset

from basicsr.utils.options import sections
from basicsr.utils.options.errors import OptionError, dotted
from basicsr.utils.options.finding import Setting
from basicsr.utils.registry import DATASET_REGISTRY, DEGRADATION_REGISTRY

from .degradation_parameters import Rng
from .image_folders import Folders, image_paths
from .patch_schedule import gt_size_of
from .seeding import mix_seed
from .storage import ImageStorage
from .to_tensor import unit_range
from .transforms import Augmentation, normalize, paired_random_crop

_GREY_WEIGHTS = (3737, 19234, 9797)  # of blue, green and red: 0.114, 0.587 and 0.299 in 1/32768, as libpng rounds them


@DATASET_REGISTRY.register()
class DegradedImageDataset(Dataset):
    """Clean images as GT, and as LQ what a list of degradations makes of them, at the same size.

    The images are found as :class:`~basicsr.data.single_image_dataset.SingleImageDataset` finds them. A training sample
    is a random crop, randomly flipped and rotated, then degraded. An evaluation sample is the whole image; what is
    drawn for it depends on its position in the data set only, so that it is the same in every validation of every run.

    Args:
        opt: The dataset's section; see :class:`Options`. ``phase`` must be given.

    Attributes:
        opt: The section.
        paths: The files, or keys of the database.
        io_backend_opt, mean, std: What the section says, as BasicSR's plug-ins read it.
        gt_folder: The folder, database or storage, or a list of them.

    Raises:
        ValueError: If there are no images, a degradation cannot be applied with its options, the scale is not 1,
            ``gt_size`` is missing for training, or ``noise_seed`` is given for it.
        FileNotFoundError: If the folder or the meta_info file does not exist.
    """

    class Options(sections.ProgressiveOptions):
        required_for_training: ClassVar[tuple[str, ...]] = (
            *sections.ProgressiveOptions.required_for_training,
            "gt_size",
        )
        dataroot_gt: Folders
        """Folder, LMDB or decoded storage of the clean images, or a list of them."""
        degradations: Annotated[list[sections.DegradationOptions], MinLen(1)]
        """What is done to an image, in this order: each a `type` and its parameters, fixed or as ranges [low, high]."""
        meta_info_file: str | None = None
        """Lists the images to use, but not with LMDB; all of the folder when absent."""
        use_hflip: bool = False
        """Flip training crops horizontally at random."""
        use_rot: bool = False
        """Flip training crops vertically and transpose them at random."""
        geometric_augs: bool = False
        """Restormer's key for both: one of the eight flips and rotations, all equally likely."""
        channels: Literal[1, 3] = 3
        """1: grey, luma by BT.601's weights as OpenCV reads a PNG; 3: RGB."""
        noise_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
        """Validation and test: seed NumPy's legacy generator with this for every image, as the published denoising
        tables do. When absent, each image has a noise of its own."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt, self._options = opt, self.Options.of(opt)
        options = self._options
        self._training = opt["phase"] == "train"
        if self._training and options.gt_size is None:
            raise ValueError(f"Dataset {options.name or 'unnamed'}: training needs gt_size, the side of a crop.")
        if self._training and options.noise_seed is not None:
            raise ValueError("noise_seed is for validation and test; in training every sample has a noise of its own")
        if (options.scale or 1) != 1:
            raise ValueError(
                f"DegradedImageDataset makes LQ of the size of GT: the scale must be 1, not {options.scale}"
            )
        self._degradations = build_degradations(opt["degradations"])
        self._storage = ImageStorage(options.io_backend, {"gt": opt["dataroot_gt"]})
        self.gt_folder = opt["dataroot_gt"]
        self.io_backend_opt = self._storage.client_options()
        self.mean, self.std = options.mean, options.std
        self.paths = image_paths(self.gt_folder, self.io_backend_opt["type"], options.meta_info_file)
        if self._training and options.gt_sizes:
            self._storage.require_room_for(max(options.gt_sizes), self.paths, "gt", "")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An image and its degraded copy.

        Returns:
            ``lq`` and ``gt`` (C, H, W), RGB or grey, in [0, 1] before normalisation, except that unclipped noise
            reaches beyond; and ``lq_path`` and ``gt_path``, both the image's.

        Raises:
            ValueError: If the image is damaged, or smaller than a crop; the message names it.
        """
        options, path = self._options, self.paths[index]
        stored = self._storage.read(path, "gt")
        if self._training:
            stored, _ = paired_random_crop(stored, stored, gt_size_of(index, options.gt_size), 1, path)
            augmentation = Augmentation.draw(options.use_hflip, options.use_rot, options.geometric_augs)
            stored = augmentation.apply(np.ascontiguousarray(stored))
        clean = _rgb(stored) if options.channels == 3 else _grey(stored)
        degraded, rng = clean, self._generator(index)
        for degrade in self._degradations:
            degraded = degrade(degraded, rng)
        return {"lq": self._tensor(degraded), "gt": self._tensor(clean), "lq_path": path, "gt_path": path}

    def _generator(self, index: int) -> Rng:
        """What the degradations of a sample draw from."""
        if self._training:
            return np.random.default_rng(random.getrandbits(64))
        if self._options.noise_seed is not None:
            return np.random.RandomState(self._options.noise_seed)
        return np.random.default_rng(mix_seed("degradation", index))

    def _tensor(self, image: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return normalize(tensor, self.mean, self.std)


def build_degradations(given: Sequence[Mapping[str, Any]]) -> list[Callable[[np.ndarray, Rng], np.ndarray]]:
    """The degradations of an option ``degradations``, as functions of an image ``(H, W, C)`` and a generator.

    Raises:
        OptionError: If there is no such degradation, or it cannot have such parameters.
    """
    problems = []
    for place, section in enumerate(given):
        try:
            sections.DegradationOptions.model_validate(dict(section), context=Setting(is_train=True))
        except ValidationError as error:
            for found in error.errors(include_url=False):
                problems.append(f"{dotted(('degradations', place, *found['loc']))}: {found['ctx']['sentence']}")
    if problems:
        raise OptionError(problems)
    return [
        partial(DEGRADATION_REGISTRY.get(section["type"]), **{key: section[key] for key in section if key != "type"})
        for section in given
    ]


def _rgb(stored: np.ndarray) -> np.ndarray:
    return unit_range(np.ascontiguousarray(stored[..., ::-1]))


def _grey(stored: np.ndarray) -> np.ndarray:
    """Luma by BT.601's weights, cut to whole levels: what OpenCV reads of a colour PNG as grey, of which the published
    tables of grey denoising are made, and the same for every storage."""
    if stored.dtype.kind == "f":
        return unit_range(stored @ np.array(_GREY_WEIGHTS, np.float32) / 32768)[..., None]
    levels = (stored.astype(np.uint32) @ np.array(_GREY_WEIGHTS, np.uint32)) >> 15
    return unit_range(levels.astype(stored.dtype))[..., None]
