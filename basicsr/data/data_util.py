"""Lists of a dataset's images: which files there are, and which LQ belongs to which GT; and sequences of images."""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from basicsr.data.memmap.images import is_memmap, read_index
from basicsr.utils.filename_template import require_filename_template
from basicsr.utils.files import kind_of
from basicsr.utils.img_util import img2tensor, imread
from basicsr.utils.misc import scandir

from .pair_advice import advice_on_names
from .transforms import mod_crop

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_NAMED_IN_ERRORS = 5
# `name.png (h,w,c)`, in an LMDB followed by the PNG compression level. The name may contain spaces.
_META_LINE = re.compile(r"(?P<name>.+?)\s+\((?P<shape>\d+(?:,\s*\d+)*)\)(?:\s+\d+)?")


class MetaLine(NamedTuple):
    """A line of a meta_info file: the image's name with extension, and its shape (h, w, c) where it is given."""

    name: str
    shape: tuple[int, ...] | None


def read_meta_info(path: str) -> list[MetaLine]:
    """Read a meta_info file: one image a line, as ``name.png (h,w,c)``, or as the name alone.

    Raises:
        FileNotFoundError: If there is no such file; the message says how to make one.
        ValueError: If it lists nothing.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"the meta_info file {path} does not exist; scripts/data_preparation/generate_meta_info.py makes one from "
            "a folder of images, and scripts/data_preparation/create_lmdb.py one in each LMDB"
        )
    with open(path, encoding="utf-8") as file:
        lines = [_parse_meta_line(line.strip()) for line in file if line.strip()]
    if not lines:
        raise ValueError(f"the meta_info file {path} lists no image")
    return lines


def _parse_meta_line(line: str) -> MetaLine:
    match = _META_LINE.fullmatch(line)
    if match is None:
        return MetaLine(line, None)
    return MetaLine(match["name"], tuple(map(int, match["shape"].split(","))))


def image_names(folder: str, recursive: bool = False) -> list[str]:
    """The images of a folder, by extension, as sorted paths relative to it with forward slashes.

    What is named like an image and is not a file (a FIFO, a link to nothing) is left out, and so are sub-folders that
    cannot be read; the log has a warning that names them.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image.
        OSError: If it cannot be read.
    """
    if not os.path.isdir(folder):
        kind = kind_of(folder)
        raise FileNotFoundError(
            f"the folder {folder} does not exist" if kind == "absent" else f"{folder} is not a folder but {kind}"
        )
    skipped: list[str] = []

    def skip(name: str, kind: str) -> None:
        if "folder" in kind or name.lower().endswith(IMAGE_EXTENSIONS):
            skipped.append(f"{name} ({kind})")

    try:
        names = [
            name.replace(os.sep, "/")
            for name in scandir(folder, recursive=recursive, skipped=skip)
            if name.lower().endswith(IMAGE_EXTENSIONS)
        ]
    except OSError as error:
        raise type(error)(f"the folder {folder} cannot be read: {error.strerror}") from error
    if skipped:
        more = f" and {len(skipped) - _NAMED_IN_ERRORS} more" if len(skipped) > _NAMED_IN_ERRORS else ""
        logging.getLogger("basicsr").warning(
            f"{folder}: left out since they are not files: {', '.join(skipped[:_NAMED_IN_ERRORS])}{more}"
        )
    if not names:
        raise ValueError(f"the folder {folder} holds no images ({', '.join(e[1:] for e in IMAGE_EXTENSIONS)})")
    return names


def stored_names(folder: str, recursive: bool = False) -> list[str]:
    """The images of a folder of files, or of decoded ones: sorted paths relative to it with forward slashes.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or is damaged decoded storage.
    """
    if not is_memmap(folder):
        return image_names(folder, recursive)
    names = [image.name for image in read_index(folder).images if recursive or "/" not in image.name]
    if not names:
        raise ValueError(f"{folder} holds no images but those of sub-folders; name them in a meta_info_file")
    return names


def paths_from_folder(folder: str) -> list[str]:
    """Paths of the images of a folder, sorted."""
    return [os.path.join(folder, name) for name in stored_names(folder)]


def paths_from_meta_info_file(folder: str, meta_info_file: str) -> list[str]:
    """Paths in ``folder`` of the images that a meta_info file lists.

    Raises:
        ValueError: If the folder lacks some of them.
    """
    names = [line.name for line in read_meta_info(meta_info_file)]
    present = stored_names(folder, recursive=any("/" in name for name in names))
    _require_all(names, present, f"{folder} lacks images listed in {meta_info_file}")
    return [os.path.join(folder, name) for name in names]


def paths_from_lmdb(folder: str) -> list[str]:
    """Keys of an LMDB: the names in its ``meta_info.txt`` without extension.

    Raises:
        ValueError: If the folder does not end in ``.lmdb``.
        FileNotFoundError: If it has no ``meta_info.txt``.
    """
    if not folder.endswith(".lmdb"):
        raise ValueError(f"the folder of an LMDB ends in .lmdb, and {folder} does not; for image files use type: disk")
    return [os.path.splitext(line.name)[0] for line in read_meta_info(os.path.join(folder, "meta_info.txt"))]


def paired_paths_from_lmdb(folders: list[str], keys: list[str], filename_tmpl: str = "{}") -> list[dict[str, str]]:
    """Pairs of keys of two LMDBs.

    Args:
        folders: The LQ and the GT database.
        keys: Their roles, ``['lq', 'gt']``.
        filename_tmpl: LQ's key from GT's, where the keys are not the same anyway.

    Returns:
        A dict for each pair: ``lq_path``, ``gt_path``, in GT's order.

    Raises:
        ValueError: If an image lacks its partner.
    """
    require_filename_template(filename_tmpl)
    (lq_folder, gt_folder), (lq_role, gt_role) = folders, keys
    lq_keys, gt_keys = paths_from_lmdb(lq_folder), paths_from_lmdb(gt_folder)
    wanted = gt_keys if set(lq_keys) == set(gt_keys) else [filename_tmpl.format(key) for key in gt_keys]
    with _advising(gt_keys, lq_keys, filename_tmpl):
        lacks = f"{lq_folder} lacks {lq_role} images that {gt_folder} has {gt_role} images for"
        _require_all(wanted, lq_keys, lacks)
        _require_all(lq_keys, wanted, f"{gt_folder} lacks the {gt_role} of {lq_role} images in {lq_folder}")
    return [{f"{lq_role}_path": lq, f"{gt_role}_path": gt} for lq, gt in zip(wanted, gt_keys)]


def paired_paths_from_meta_info_file(
    folders: list[str], keys: list[str], meta_info_file: str, filename_tmpl: str
) -> list[dict[str, str]]:
    """Pairs of files, the GT names taken from a meta_info file.

    Args:
        folders: The LQ and the GT folder.
        keys: Their roles, ``['lq', 'gt']``.
        meta_info_file: Lists the GT images.
        filename_tmpl: LQ's name from GT's, both without extension: ``{}x4``. The extensions may differ.

    Returns:
        A dict for each pair: ``lq_path``, ``gt_path``, in the file's order.

    Raises:
        ValueError: If a listed image, or its partner, is not there.
    """
    (lq_folder, gt_folder), (lq_role, gt_role) = folders, keys
    gt_names = [line.name for line in read_meta_info(meta_info_file)]
    recursive = any("/" in name for name in gt_names)
    _require_all(
        gt_names, stored_names(gt_folder, recursive), f"{gt_folder} lacks {gt_role} images listed in {meta_info_file}"
    )
    present = stored_names(lq_folder, recursive)
    with _advising(gt_names, present, filename_tmpl):
        lq_names = _partners(
            gt_names,
            present,
            filename_tmpl,
            f"{lq_folder} lacks the {lq_role} (filename_tmpl '{filename_tmpl}') of images listed in {meta_info_file}",
        )
    return [
        {f"{lq_role}_path": os.path.join(lq_folder, lq), f"{gt_role}_path": os.path.join(gt_folder, gt)}
        for lq, gt in zip(lq_names, gt_names)
    ]


def paired_paths_from_folder(folders: list[str], keys: list[str], filename_tmpl: str) -> list[dict[str, str]]:
    """Pairs of files of two folders; see ``paired_paths_from_meta_info_file``.

    Raises:
        ValueError: If an image of either folder lacks its partner.
    """
    (lq_folder, gt_folder), (lq_role, gt_role) = folders, keys
    gt_names, present = stored_names(gt_folder), stored_names(lq_folder)
    lq, gt = f"the {lq_role} (filename_tmpl '{filename_tmpl}')", f"the {gt_role} (filename_tmpl '{filename_tmpl}')"
    with _advising(gt_names, present, filename_tmpl):
        lq_names = _partners(gt_names, present, filename_tmpl, f"{lq_folder} lacks {lq} of images in {gt_folder}")
        _require_all(present, lq_names, f"{gt_folder} lacks {gt} of images in {lq_folder}")
    return [
        {f"{lq_role}_path": os.path.join(lq_folder, lq), f"{gt_role}_path": os.path.join(gt_folder, gt)}
        for lq, gt in zip(lq_names, gt_names)
    ]


@contextmanager
def _advising(gt_names: list[str], lq_names: list[str], filename_tmpl: str) -> Iterator[None]:
    """A block whose errors end with what is probably wrong."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}{advice_on_names(gt_names, lq_names, filename_tmpl)}") from None


def _partners(gt_names: list[str], lq_names: list[str], filename_tmpl: str, problem: str) -> list[str]:
    """For each GT name the LQ name that the template gives: with GT's extension, or else with another."""
    require_filename_template(filename_tmpl)
    present = set(lq_names)
    by_stem = {os.path.splitext(name)[0]: name for name in lq_names}
    partners = []
    for gt_name in gt_names:
        stem, extension = os.path.splitext(gt_name)
        folder, stem = posixpath.split(stem)
        stem = posixpath.join(folder, filename_tmpl.format(stem))
        wanted = stem + extension
        partners.append(wanted if wanted in present else by_stem.get(stem, wanted))
    _require_all(partners, lq_names, problem)
    return partners


def _require_all(wanted: list[str], present: list[str], problem: str) -> None:
    """Raise ValueError if not everything wanted is present; the message names the first that are missing."""
    known = set(present)
    missing = [name for name in wanted if name not in known]
    if missing:
        shown = ", ".join(missing[:_NAMED_IN_ERRORS])
        more = f" and {len(missing) - _NAMED_IN_ERRORS} more" if len(missing) > _NAMED_IN_ERRORS else ""
        raise ValueError(f"{problem}: {shown}{more}. {len(known)} are there, the first of them {present[0]}.")


def read_img_seq(
    path: str | list[str], require_mod_crop: bool = False, scale: int = 1, return_imgname: bool = False
) -> torch.Tensor | tuple[torch.Tensor, list[str]]:
    """Read images of one size as a sequence.

    Args:
        path: A folder, of which all files are read in the order of their names, or a list of files.
        require_mod_crop: Whether to crop each image to a multiple of ``scale``.
        scale: See there.
        return_imgname: Whether to return the files' names as well.

    Returns:
        ``(T, C, H, W)``, RGB in [0, 1]; on request also the names without folder and extension.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file is not a whole image.
    """
    files = path if isinstance(path, list) else list(scandir(path, full_path=True))
    images = [imread(file).astype(np.float32) / 255.0 for file in files]
    if require_mod_crop:
        images = [mod_crop(image, scale) for image in images]
    sequence = torch.stack(img2tensor(images))
    if not return_imgname:
        return sequence
    return sequence, [os.path.splitext(os.path.basename(file))[0] for file in files]


def generate_gaussian_kernel(kernel_size: int = 13, sigma: float = 1.6) -> np.ndarray:
    """A Gaussian window ``(kernel_size, kernel_size)``: what SciPy's filter makes of a single point, its sum 1."""
    point = np.zeros((kernel_size, kernel_size))
    point[kernel_size // 2, kernel_size // 2] = 1
    return gaussian_filter(point, sigma)


def duf_downsample(x: torch.Tensor, kernel_size: int = 13, scale: int = 4) -> torch.Tensor:
    """Blur with a Gaussian of σ = 0.4·scale and take every ``scale``-th pixel, as the authors of DUF do.

    Jo et al., "Deep video super-resolution network using dynamic upsampling filters without explicit motion
    compensation", CVPR 2018.

    Args:
        x: ``(B, T, C, H, W)`` or ``(T, C, H, W)``. The border is mirrored.
        kernel_size: Side of the window.
        scale: 2, 3 or 4.

    Returns:
        The same with sides divided by ``scale``.

    Raises:
        ValueError: For another scale.
    """
    if scale not in (2, 3, 4):
        raise ValueError(f"duf_downsample: the scale must be 2, 3 or 4, not {scale}")
    frames = x.reshape(-1, 1, *x.shape[-2:])
    # Two output pixels more on each side, which are cut off again.
    frames = F.pad(frames, [kernel_size // 2 + 2 * scale] * 4, mode="reflect")
    window = torch.from_numpy(generate_gaussian_kernel(kernel_size, 0.4 * scale)).to(x)
    small = F.conv2d(frames, window[None, None], stride=scale)[..., 2:-2, 2:-2]
    return small.reshape(*x.shape[:-2], *small.shape[-2:])
