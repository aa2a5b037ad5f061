"""Finding the folders of LQ and of GT images below a source."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from .pairs import Part, match, merge
from .tree import Tree

_PARTS = ("train", "val", "test")


def part_patterns(own: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Which folders are which part: ``train``, ``<own>/train`` and ``train/<own>`` are the training part, and so on.

    Args:
        own: The set's own folder name, a regular expression.
        extra: Further regular expressions, of whole relative paths → their part.

    Returns:
        Regular expression of a whole path, relative to the source → part.
    """
    usual = {rf"(?:(?:.*/)?(?:{own})/)?{part}|(?:.*/)?{part}/(?:{own})": part for part in _PARTS}
    return {**(extra or {}), **usual}


@dataclass(frozen=True)
class FolderPairs:
    """LQ images in one or several folders, GT in another, beside each other in a base folder.

    Attributes:
        folders: Regular expressions of the LQ and the GT folders, relative to the base. ``""`` is the base itself.
        own: The set's own folder name, a regular expression. Such a base is of the ``default`` part, as is the source
            itself.
        default: The part of a base whose folders do not say it.
        parts: See :func:`part_patterns`.
        key: What an LQ and its GT have in common, from their names without extension.
        spare_gt: Whether GT images may be without LQ.
        lq_names, gt_names: Regular expressions of the names, for a folder that holds both.
    """

    folders: tuple[tuple[str, str], ...]
    own: str
    default: str
    parts: Mapping[str, str] = field(default_factory=dict)
    key: Callable[[str], str] = str
    spare_gt: bool = False
    lq_names: str = ".*"
    gt_names: str = ".*"

    def find(self, tree: Tree) -> dict[str, Part]:
        """The parts that a source holds.

        Raises:
            ValueError: If two folders could be the same part or the GT of one, or images are without partner.
        """
        bases: dict[str, tuple[str, list[str], str]] = {}
        for lq_pattern, gt_pattern in self.folders:
            gts: dict[str, str] = {}
            for base, folder in self._bases(tree, gt_pattern, self.gt_names):
                if gts.setdefault(base, folder) != folder:
                    raise ValueError(
                        f"{tree.path(gts[base])} and {tree.path(folder)} could both hold the GT; remove one of them"
                    )
            lqs: dict[str, list[str]] = {}
            for base, folder in self._bases(tree, lq_pattern, self.lq_names):
                lqs.setdefault(base, []).append(folder)
            for base in [base for base in lqs if base in gts]:
                part = self._part(tree, base)
                if part is None:
                    continue
                if part in bases and bases[part] != (base, lqs[base], gts[base]):
                    raise ValueError(
                        f"{tree.path(base)} ({lq_pattern}, {gt_pattern}) and {tree.path(bases[part][0])} could both be "
                        f"the part '{part}'; name one of them as the source"
                    )
                bases[part] = (base, lqs[base], gts[base])
        return {part: self._match(tree, *found) for part, found in bases.items()}

    @staticmethod
    def _bases(tree: Tree, pattern: str, names: str) -> list[tuple[str, str]]:
        """Base → folder, for each folder with images whose path ends as the pattern says."""
        whole = re.compile(rf"(?:(?P<base>.*)/)?(?:{pattern})" if pattern else r"(?P<base>.*)", re.IGNORECASE)
        found = [(whole.fullmatch(folder), folder) for folder in tree.files]
        return [(m["base"] or "", folder) for m, folder in found if m and _images(tree, folder, names)]

    def _part(self, tree: Tree, base: str) -> str | None:
        root = PurePath(os.path.abspath(tree.root))
        # The source itself may be named `train`, or be the folder `test/<own>` of a larger download.
        candidates = [base] if base else ["/".join(root.parts[-2:]), root.name]
        for candidate in candidates:
            for pattern, part in self.parts.items():
                if re.fullmatch(pattern, candidate, re.IGNORECASE):
                    return part
        is_own = re.fullmatch(rf"(?:.*/)?(?:{self.own})", base, re.IGNORECASE)
        return self.default if not base or is_own else None

    def _match(self, tree: Tree, base: str, lqs: list[str], gt: str) -> Part:
        lq = [pair for folder in lqs for pair in _named(tree, folder, self.lq_names)]
        where = tree.path(base) if base else str(tree.root)
        return match(lq, _named(tree, gt, self.gt_names), self.key, where, spare_gt=self.spare_gt)


def _images(tree: Tree, folder: str, names: str) -> list[str]:
    if names == ".*":
        return tree.images(folder)
    pattern = re.compile(names, re.IGNORECASE)
    return [name for name in tree.images(folder) if pattern.fullmatch(os.path.splitext(name)[0])]


def _named(tree: Tree, folder: str, names: str) -> list[tuple[str, str]]:
    return [(os.path.splitext(name)[0], tree.path(folder, name)) for name in _images(tree, folder, names)]


@dataclass(frozen=True)
class Scenes:
    """GoPro: a folder for each scene, with a folder of blurred and one of sharp frames.

    Attributes:
        blur: The folder of blurred frames.
    """

    blur: str

    def find(self, tree: Tree) -> dict[str, Part]:
        """The training and the test part; frame ``000047`` of a scene is ``<scene>-000047``.

        Raises:
            ValueError: If frames are without partner.
        """
        scenes: dict[str, list[Part]] = {}
        name = tree.root.resolve().name  # the source may be the folder `train` or `test` itself
        for folder in tree.files:
            found = re.fullmatch(r"(?:.*/)?(train|test)/([^/]+)/sharp", f"{name}/{folder}", re.IGNORECASE)
            if not found or not tree.images(folder):
                continue
            scene = folder.rpartition("/")[0]
            blurred = [(f"{found[2]}-{stem}", path) for stem, path in _named(tree, f"{scene}/{self.blur}", ".*")]
            sharp = [(f"{found[2]}-{stem}", path) for stem, path in _named(tree, folder, ".*")]
            scenes.setdefault(found[1].lower(), []).append(match(blurred, sharp, str, tree.path(scene)))
        return {part: merge(found) for part, found in scenes.items()}


class PhoneScenes:
    """SIDD: a folder for each scene instance, with noisy and clean images of the same numbers."""

    _NAME = re.compile(r"(?:\d+_)?(NOISY|GT)_SRGB_(\d+)", re.IGNORECASE)

    def find(self, tree: Tree) -> dict[str, Part]:
        """The training part; the image 010 of a scene is ``<scene>_010``.

        Raises:
            ValueError: If images are without partner.
        """
        scenes = []
        for folder in tree.files:
            images: dict[str, list[tuple[str, str]]] = {"noisy": [], "gt": []}
            for stem, path in _named(tree, folder, ".*"):
                if found := self._NAME.fullmatch(stem):
                    scene = folder.rpartition("/")[2] or tree.root.resolve().name
                    images[found[1].lower()].append((f"{scene}_{found[2]}", path))
            if any(images.values()):
                scenes.append(match(images["noisy"], images["gt"], str, tree.path(folder)))
        return {"train": merge(scenes)} if scenes else {}
