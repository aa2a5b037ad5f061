"""The names that the option files of Restormer and NAFNet use, read as ours."""

from __future__ import annotations

from typing import Any

from .errors import dotted
from .lookup import datasets_of, section_of
from .registered import find_or_none
from .sections import TrainOptions
from .translation import Translation

_RECIPES = ("ImageCleanModel", "ImageRestorationModel")
_OURS = "SRModel"
_DATASET, _OUR_DATASET = "Dataset_PairedImage", "PairedImageDataset"
_CLIP, _NORM = ("train", "use_grad_clip"), ("train", "clip_grad_norm")
_PUBLISHED_NORM = 0.01


def translate_published_names(translation: Translation) -> list[str]:
    """Read the recipe and the data sets of Restormer and NAFNet as ours.

    A class of the user's that has such a name is left alone. What these recipes and data sets do without being asked is
    written out: NAFNet's clips gradients, and both extend training images that are smaller than a crop.

    Args:
        translation: The options.

    Returns:
        A sentence for each name.
    """
    opt, notices = translation.opt, []
    recipe = opt.get("model_type")
    is_published = recipe in _RECIPES and find_or_none("model", recipe) is None
    for name, dataset in datasets_of(opt):
        key = ("datasets", name, "type")
        if dataset.get("type") == _DATASET and find_or_none("dataset", _DATASET) is None:
            opt["datasets"][name]["type"] = _OUR_DATASET
            notices.append(f"{translation.marks.label(key)}: {_DATASET} is read as {_OUR_DATASET}")
        elif not (is_published and dataset.get("type") == _OUR_DATASET):
            continue
        if name.split("_")[0] == "train" and "pad_small" not in dataset:
            translation.put((*key[:-1], "pad_small"), True, key)
    if is_published:
        opt["model_type"] = _OURS
        notices.append(f"{translation.marks.label(('model_type',))}: {recipe} is read as {_OURS}")
        train = section_of(opt, "train")
        if recipe == "ImageRestorationModel" and train and "use_grad_clip" not in train and _NORM[-1] not in train:
            translation.put(_NORM, _PUBLISHED_NORM, ("model_type",))
            notices.append(
                f"{dotted(_NORM)} is {_PUBLISHED_NORM}, as {recipe} clips gradients unless use_grad_clip is false"
            )
    return notices


def translate_clipping(translation: Translation, recipe: Any) -> list[str]:
    """Read ``use_grad_clip`` as ``clip_grad_norm``.

    A recipe that declares the key keeps it, and so does a plug-in that declares no keys and may read any; for that one
    our own step clips as well, where the plug-in uses it.

    Args:
        translation: The options.
        recipe: The class that ``model_type`` names.

    Returns:
        A sentence, where the key is given.
    """
    declared = getattr(recipe, "TrainOptions", TrainOptions).model_fields
    if not translation.has(_CLIP) or _CLIP[-1] in declared:
        return []
    label, value = translation.marks.label(_CLIP), section_of(translation.opt, "train")[_CLIP[-1]]
    if value not in (True, False, None):
        translation.refuse(_CLIP, f"must be true or false, not {value!r}")
    is_open = "TrainOptions" not in vars(recipe)
    if not is_open:
        translation.take(_CLIP)
    if value is not True:
        return [] if is_open else [f"{label} has no effect: gradients are clipped where {dotted(_NORM)} is given"]
    translation.put(_NORM, _PUBLISHED_NORM, _CLIP)
    return [f"{label} is read as {dotted(_NORM)}: {_PUBLISHED_NORM}"]
