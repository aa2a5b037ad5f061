"""The table of the public restoration data sets that can be prepared, and the layouts in which they are found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .folders import FolderPairs, PhoneScenes, Scenes, part_patterns
from .pairs import Part
from .sidd_blocks import validation_blocks
from .tree import Tree

_INPUT = ("input", "target")  # the names in Restormer's downloads
_CROPS = ("input_crops", "target_crops")
_RAIN_TESTS = ("Rain100L", "Rain100H", "Test100", "Test1200", "Test2800")


@dataclass(frozen=True)
class RestorationSet:
    """A public data set.

    Attributes:
        name: Its name.
        task: What it is for.
        looks_like: Its layouts, in a line, for messages.
        layouts: Give the parts that a source holds, each a layout of its own.
        own: Regular expression of folder names by which it is recognised when another set was named.
        patch_size: Side of a training patch in pixels, 0 for whole images: what Restormer's and NAFNet's scripts take.
        overlap: Pixels that neighbouring patches share at least.
        gt_margin: Pixels that GT may have beyond LQ on each side, which are then cut off.
        variants: Folders of LQ images of which one is used, the default first.
    """

    name: str
    task: str
    looks_like: str
    layouts: tuple[Callable[[Tree], dict[str, Part]], ...]
    own: str
    patch_size: int = 0
    overlap: int = 0
    gt_margin: int = 0
    variants: tuple[str, ...] = ()

    def find(self, tree: Tree, variant: str | None = None) -> dict[str, Part]:
        """The parts that a source holds, training first, by their folders below the target: ``train``, ``test`` ….

        Args:
            tree: The source.
            variant: One of ``variants``, the first by default.

        Raises:
            ValueError: If the source does not look like this set, holds a part twice, or images lack partners.
        """
        root = tree.root.resolve().name
        if root.lower() != self.name.lower() and root.lower() in map(str.lower, SETS):
            raise ValueError(f"the source {tree.root} is named {root}, not {self.name}; name that set, or rename it")
        parts: dict[str, Part] = {}
        layouts = self.layouts
        if self.variants:
            scenes = Scenes(variant or self.variants[0])
            if variant and not scenes.find(tree):
                raise ValueError(f"{tree.root} holds no <scene>/{variant}, for which a variant was chosen")
            layouts = (scenes.find, *layouts)
        for layout in layouts:
            for part, found in layout(tree).items():
                if part in parts:
                    raise ValueError(f"{tree.root} holds the part '{part}' of {self.name} in two layouts; name one")
                parts[part] = found
        if not parts:
            raise ValueError(
                f"{tree.root} does not look like {self.name}: looked for {self.looks_like}; found {tree.summary()}"
                f"{_others(tree, self)}"
            )
        return dict(sorted(parts.items(), key=lambda item: (item[0] != "train", item[0])))


def _others(tree: Tree, named: RestorationSet) -> str:
    folders = [f"{tree.root.resolve().name}/{folder}/" for folder in tree.files]
    like = [
        other.name
        for other in SETS.values()
        if other is not named
        and any(re.search(rf"(?:^|/)(?:{other.own})/", folder, re.IGNORECASE) for folder in folders)
    ]
    return f". It looks like {' or '.join(like[:3])}" if like else ""


def _number(stem: str) -> str:
    """The number in ``rain-001``, ``norain-1`` and ``norain-001x2``; another name as it is."""
    found = re.fullmatch(r"(?:no)?rain-?0*(\d+)(?:x2)?", stem, re.IGNORECASE)
    return found[1] if found else stem


def _without_count(stem: str) -> str:
    """``901`` from ``901_14``."""
    return re.sub(r"_\d+$", "", stem)


def _before_haze(stem: str) -> str:
    """``0001`` from ``0001_0.8_0.2``."""
    return stem.partition("_")[0]


def _rain100(name: str, weight: str) -> RestorationSet:
    train, test = (rf"(?:.*/)?(?:rain_data_{part}_{weight})" for part in ("train", "test"))
    parts = part_patterns(name, {train: "train", rf"(?:.*/)?RainTrain{name[-1]}": "train", test: "test"})
    both = {"own": name, "default": "test", "parts": parts, "key": _number}
    folders = (_INPUT, ("rain", "norain"), ("rain/X2", "norain"), ("rainy", "norain"), ("lq", "gt"))
    names = {"lq_names": r"rain-?\d+", "gt_names": r"norain-?\d+"}
    return RestorationSet(
        name,
        "deraining",
        "{input,target}, {rain,norain}, or rain-001.png and norain-001.png in one folder, in the folder itself, in "
        f"{name}, or in rain_data_{{train,test}}_{weight}",
        (
            FolderPairs(folders, **both).find,
            FolderPairs((("", ""),), **both, **names).find,
            FolderPairs((("rainy", ""),), **both, gt_names=names["gt_names"]).find,
        ),
        rf"{name}|rain_data_(?:train|test)_{weight}|RainTrain{name[-1]}",
    )


def _rain_test(name: str) -> RestorationSet:
    return RestorationSet(
        name,
        "deraining",
        f"{{input,target}}, in the folder itself or in {name}",
        (FolderPairs((_INPUT,), name, "test", part_patterns(name)).find,),
        name,
    )


def _sots(place: str, own: str) -> RestorationSet:
    folders = ((r"hazy|haze", r"gt|clear"), _INPUT)
    pairs = FolderPairs(folders, own, "test", part_patterns(own), key=_before_haze, spare_gt=True)
    looks_like = f"{{hazy,gt}} or {{hazy,clear}}, in the folder itself or in {place}, with 0001_0.8_0.2.jpg → 0001.png"
    margin = 10 if place == "indoor" else 0
    return RestorationSet(f"SOTS-{place}", "dehazing", looks_like, (pairs.find,), own, gt_margin=margin)


_RAIN1400 = r"rain1400|ddn[-_]data|rainy_image_dataset"
_RAINY = FolderPairs(
    (("rainy_image", "ground_truth|reference_clean_image"),),
    _RAIN1400,
    "train",
    part_patterns(_RAIN1400, {r"(?:.*/)?(?:training|train)": "train", r"(?:.*/)?(?:testing|test)": "test"}),
    key=_without_count,
)
_ITS = r"its|its_v2|reside-indoor"

SETS: dict[str, RestorationSet] = {
    each.name: each
    for each in (
        RestorationSet(
            "GoPro",
            "motion deblurring",
            "{train,test}/<scene>/{blur,sharp}/*.png, or {input,target}",
            (FolderPairs((_INPUT, _CROPS), "gopro", "train", part_patterns("gopro")).find,),
            r"gopro(?:_large)?|(?:train|test)/[^/]+/(?:blur|blur_gamma|sharp)",
            patch_size=512,
            overlap=256,
            variants=("blur", "blur_gamma"),
        ),
        RestorationSet(
            "HIDE",
            "motion deblurring",
            "test/{test-close-ups,test-long-shot} and GT, or {input,target}",
            (
                FolderPairs(
                    (("test/(?:test-close-ups|test-long-shot)", "gt"),), "hide(?:_dataset)?", "test", spare_gt=True
                ).find,
                FolderPairs((_INPUT,), "hide", "test", part_patterns("hide")).find,
            ),
            r"hide|hide_dataset|test-close-ups|test-long-shot",
        ),
        RestorationSet(
            "SIDD",
            "denoising of photographs",
            "Data/<scene>/*_{NOISY,GT}_SRGB_*.PNG, Validation{Noisy,Gt}BlocksSrgb.mat, or {input_crops,target_crops}",
            (
                PhoneScenes().find,
                validation_blocks,
                FolderPairs((_CROPS, ("input_crops", "gt_crops"), _INPUT), "sidd", "train", part_patterns("sidd")).find,
            ),
            r"sidd|sidd_[^/]*|\d{4}_\d{3}_[^/]+_\d{5}_[^/]+",
            patch_size=512,
            overlap=128,
        ),
        RestorationSet(
            "Rain13K",
            "deraining",
            f"train/Rain13K/{{input,target}} and test/{{{','.join(_RAIN_TESTS)}}}/{{input,target}}",
            (
                FolderPairs(
                    (_INPUT,),
                    "rain13k",
                    "train",
                    part_patterns("rain13k", {rf"(?:.*/)?test/{name}": f"test/{name}" for name in _RAIN_TESTS}),
                ).find,
            ),
            "rain13k",
        ),
        _rain100("Rain100L", "Light"),
        _rain100("Rain100H", "Heavy"),
        _rain_test("Test100"),
        _rain_test("Test1200"),
        _rain_test("Test2800"),
        RestorationSet(
            "Rain1400",
            "deraining",
            "{training,testing}/{rainy_image,ground_truth} with 901_1.jpg … 901_14.jpg → 901.jpg, or the two folders",
            (_RAINY.find,),
            rf"{_RAIN1400}|rainy_image",
        ),
        RestorationSet(
            "RESIDE-OTS",
            "dehazing",
            "clear/0001.jpg and part1, part2 … or hazy with 0001_0.8_0.2.jpg",
            (
                FolderPairs(
                    ((r"part\d+|hazy|haze", "clear"),),
                    "ots|ots_beta",
                    "train",
                    part_patterns("ots|ots_beta|reside-outdoor"),
                    key=_before_haze,
                    spare_gt=True,
                ).find,
            ),
            r"ots|ots_beta|part\d+",
        ),
        RestorationSet(
            "RESIDE-ITS",
            "dehazing",
            "hazy/1_1_0.90179.png and clear/1.png (or gt), in the folder itself, in ITS or in train",
            (
                FolderPairs(
                    ((r"hazy|haze", r"clear|gt"),), _ITS, "train", part_patterns(_ITS), key=_before_haze, spare_gt=True
                ).find,
            ),
            _ITS,
            gt_margin=10,
        ),
        _sots("indoor", "sots/indoor|indoor/nyuhaze500|nyuhaze500|indoor"),
        _sots("outdoor", "sots/outdoor|outdoor"),
        RestorationSet(
            "Snow100K",
            "desnowing",
            "all/{synthetic,gt} (training) and Snow100K-{S,M,L}/{synthetic,gt} (test)",
            (
                FolderPairs(
                    (("synthetic", "gt"),),
                    "snow100k(?:-training)?",
                    "train",
                    {
                        r"(?:.*/)?(?:all|train)": "train",
                        **{rf"(?:.*/)?snow100k-{size}": f"test/Snow100K-{size}" for size in "SML"},
                    },
                ).find,
            ),
            r"snow100k|snow100k-[sml]|synthetic",
        ),
    )
}
