"""Preparing datasets: sub-images, LR images, meta_info files and LMDBs from folders of images.

Every step uses several processes, shows its progress, and can be restarted: files are written atomically, and existing
ones are kept. Files that cannot be used are skipped and listed at the end.
"""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from basicsr.utils.filename_template import require_filename_template
from basicsr.utils.files import require_writable
from basicsr.utils.img_util import imwrite
from basicsr.utils.lmdb_util import make_lmdb_from_imgs, read_as_stored, read_source
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.parallel import parallel_map

from .data_util import image_names, read_meta_info
from .transforms import mod_crop

_SETTINGS_FILE = ".preparation.json"


def extract_subimages(
    input_folder: str,
    output_folder: str,
    crop_size: int,
    step: int,
    *,
    thresh_size: int = 0,
    filename_tmpl: str = "{}",
    compression_level: int = 3,
    num_workers: int = 1,
) -> list[str]:
    """Cut the images of a folder into overlapping squares ``<name>_s001.png`` …, which load faster than whole images.

    Args:
        input_folder: The images.
        output_folder: Where to; a folder that was made with other settings is refused.
        crop_size: Side of a square in pixels.
        step: Distance between neighbours.
        thresh_size: A last row or column, flush with the border, is added where more than this would be left over.
        filename_tmpl: How the input names were made from those to be used; ``{}x4`` drops a final ``x4``, so that LR
            sub-images are called like their GT.
        compression_level: PNG compression level, 0 to 9.
        num_workers: Number of processes.

    Returns:
        For each image that could not be used a line with its name and the reason.

    Raises:
        ValueError: If sizes are not positive, names do not fit the template or collide, or the folder holds other
            results.
    """
    if min(crop_size, step) < 1 or thresh_size < 0:
        raise ValueError(
            f"crop_size {crop_size} and step {step} must be positive, thresh_size {thresh_size} not negative"
        )
    names = image_names(input_folder)
    stems = _unique_stems(names, filename_tmpl)
    sizes = {"crop_size": crop_size, "step": step, "thresh_size": thresh_size}
    prepare_output(output_folder, {"made": "sub-images", **sizes})
    jobs = [(os.path.join(input_folder, name), os.path.join(output_folder, stem)) for name, stem in zip(names, stems)]
    cut = partial(_cut_subimages, compression_level=compression_level, **sizes)
    return [f"{job[0]}: {result}" for job, result in parallel_map(cut, jobs, num_workers, "sub-images") if result]


def _cut_subimages(job: tuple[str, str], crop_size: int, step: int, thresh_size: int, compression_level: int) -> None:
    source, target = job
    img = read_source(source)
    height, width = img.shape[:2]
    if min(height, width) < crop_size:
        raise ValueError(f"{height}×{width} pixels (height×width) hold no sub-image of {crop_size}×{crop_size}")
    corners = [
        (top, left)
        for top in crop_starts(height, crop_size, step, thresh_size)
        for left in crop_starts(width, crop_size, step, thresh_size)
    ]
    for number, (top, left) in enumerate(corners, 1):
        path = f"{target}_s{number:03d}.png"
        if not os.path.exists(path):
            patch = img[top : top + crop_size, left : left + crop_size]
            imwrite(patch, path, [cv2.IMWRITE_PNG_COMPRESSION, compression_level])


def crop_starts(length: int, crop_size: int, step: int, thresh_size: int) -> list[int]:
    """Where crops of a side of ``length`` pixels begin; see :func:`extract_subimages`."""
    starts = list(range(0, length - crop_size + 1, step))
    if length - (starts[-1] + crop_size) > thresh_size:
        starts.append(length - crop_size)
    return starts


def make_lr(
    input_folder: str,
    output_folder: str,
    scales: list[int],
    *,
    filename_tmpl: str = "{}x{scale}",
    gt_output_folder: str | None = None,
    num_workers: int = 1,
) -> list[str]:
    """Shrink the images of a folder by MATLAB's bicubic to ``<output>/X<scale>/<name>x<scale>.png``.

    Args:
        input_folder: GT images. An image is first cut at the bottom and right to a multiple of the scale.
        output_folder: Where to; one folder is made in it for each scale.
        scales: The factors.
        filename_tmpl: The new name from the old, both without extension, and ``scale``.
        gt_output_folder: Where to write GT cut to a multiple of all scales, from which LR is then made. Training needs
            it where GT sizes are not multiples of the scale.
        num_workers: Number of processes.

    Returns:
        For each image that could not be used a line with its name and the reason.

    Raises:
        ValueError: If there is no scale above 1, the template is none, names collide, or a folder holds other results.
    """
    if not scales or min(scales) < 2:
        raise ValueError(f"scales must be 2 or more, not {scales}")
    require_filename_template(filename_tmpl, ("scale",))
    names = image_names(input_folder)
    stems = _unique_stems(names, "{}")
    divisor = math.lcm(*scales) if gt_output_folder else None
    for scale in scales:
        settings = {"made": "LR", "scale": scale, "gt_multiple_of": divisor or scale, "filename_tmpl": filename_tmpl}
        prepare_output(os.path.join(output_folder, f"X{scale}"), settings)
    if gt_output_folder:
        prepare_output(gt_output_folder, {"made": "GT", "gt_multiple_of": divisor})
    jobs = []
    for name, stem in zip(names, stems):
        targets = {
            scale: os.path.join(output_folder, f"X{scale}", filename_tmpl.format(stem, scale=scale) + ".png")
            for scale in scales
        }
        if gt_output_folder:
            targets[1] = os.path.join(gt_output_folder, f"{stem}.png")
        jobs.append((os.path.join(input_folder, name), targets))
    shrink = partial(_shrink, divisor=divisor)
    return [f"{job[0]}: {result}" for job, result in parallel_map(shrink, jobs, num_workers, "LR") if result]


def _shrink(job: tuple[str, dict[int, str]], divisor: int | None) -> None:
    source, targets = job
    missing = {scale: path for scale, path in targets.items() if not os.path.exists(path)}
    if not missing:
        return
    img = read_source(source)
    needed = divisor or max(missing)
    if min(img.shape[:2]) < needed:
        raise ValueError(f"{img.shape[0]}×{img.shape[1]} pixels (height×width) are too few to be shrunk by {needed}")
    for scale, path in missing.items():
        cut = mod_crop(img, divisor or scale)
        imwrite(cut if scale == 1 else imresize(cut, 1 / scale), path)


def generate_meta_info(folder: str, meta_info_file: str, num_workers: int = 1) -> list[str]:
    """List the images of a folder, and of its sub-folders, in a meta_info file: ``name.png (h,w,c)``.

    Args:
        folder: The images; each is read whole.
        meta_info_file: The file to write. One that lists these images already is left alone.
        num_workers: Number of processes.

    Returns:
        For each image that could not be read a line with its name and the reason; then nothing is written.

    Raises:
        FileExistsError: If the file is there and lists other images.
    """
    names = image_names(folder, recursive=True)
    if os.path.exists(meta_info_file):
        if [line.name for line in read_meta_info(meta_info_file)] == names:
            return []
        raise FileExistsError(f"{meta_info_file} exists and lists other images than {folder} has; remove it first")
    lines, failures = [], []
    for name, result in parallel_map(partial(_shape, folder=folder), names, num_workers, "meta_info"):
        if isinstance(result, Exception):
            failures.append(f"{os.path.join(folder, name)}: {result}")
        else:
            lines.append(f"{name} ({','.join(map(str, result))})\n")
    if not failures:
        _write_text(Path(meta_info_file), "".join(lines))
    return failures


def _shape(name: str, folder: str) -> tuple[int, ...]:
    return (*read_as_stored(os.path.join(folder, name)).shape, 1)[:3]


def create_lmdb(folder: str, lmdb_path: str, compress_level: int = 1, num_workers: int = 1) -> None:
    """Store the images of a folder in an LMDB; the keys are their names without extension.

    Args:
        folder: The images.
        lmdb_path: The database to make. One that has these images already is left alone.
        compress_level: PNG compression level, 0 to 9.
        num_workers: Number of processes.

    Raises:
        FileExistsError: If the database is there and has other images.
        ValueError: If images cannot be read (all are named), or their names collide. Nothing is made.
    """
    names = image_names(folder)
    stems = _unique_stems(names, "{}")
    if os.path.exists(lmdb_path):
        listed = os.path.join(lmdb_path, "meta_info.txt")
        if os.path.isfile(listed) and [os.path.splitext(line.name)[0] for line in read_meta_info(listed)] == stems:
            return
        raise FileExistsError(f"{lmdb_path} exists and has other images than {folder}; remove it first")
    make_lmdb_from_imgs(
        folder,
        lmdb_path,
        names,
        stems,
        compress_level=compress_level,
        multiprocessing_read=num_workers > 1,
        n_thread=num_workers,
    )


def _unique_stems(names: list[str], filename_tmpl: str) -> list[str]:
    """Names without their extension and without the text that the template adds."""
    before, _, after = filename_tmpl.partition("{}")
    stems: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        if not (stem.startswith(before) and stem.endswith(after) and len(stem) > len(before + after)):
            raise ValueError(f"the image {name} is not named by the template '{filename_tmpl}'")
        stem = stem[len(before) : len(stem) - len(after)]
        if stem in stems:
            raise ValueError(f"the images {stems[stem]} and {name} would get the same name {stem}")
        stems[stem] = name
    return list(stems)


def prepare_output(folder: str, settings: dict[str, Any]) -> None:
    """Create an output folder and record its settings.

    Raises:
        ValueError: If it was made with other settings, or what says so is damaged.
        OSError: If nothing can be written there.
    """
    note = Path(folder, _SETTINGS_FILE)
    require_writable(folder)
    if note.is_file():
        try:
            made = json.loads(note.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{note}, how the folder was made, is damaged ({error}); remove the folder") from error
        if made != settings:
            raise ValueError(f"{folder} was made with {made}, not with {settings}; remove it or name another folder")
    elif {entry.name for entry in os.scandir(folder)} - {_aside(note).name}:  # which a start that was killed left
        raise ValueError(f"{folder} holds files of another origin; name a new folder, or empty it")
    else:
        _write_text(note, json.dumps(settings))


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")
