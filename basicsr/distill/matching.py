"""Brings the two features of a pair to one layout and size; adapters bring them to one width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .adapters import adapt
from .layout import FeatureLayout

Resize = Literal["none", "student", "teacher"]


@dataclass(frozen=True)
class Match:
    """How the positions of two features, in their canonical forms, correspond.

    Features of equal height and width are compared as maps if both are maps, otherwise as tokens: a map is flattened to
    ``(B, H·W, C)``. If their sizes differ, ``resize`` names the side that is interpolated to the other's height and
    width (bilinear, without aligned corners or antialiasing), and they are compared as maps.

    Args:
        student: The student's layout.
        teacher: The teacher's.
        resize: The side that may be interpolated.

    Raises:
        ValueError: If their positions do not correspond and cannot be made to.
    """

    student: FeatureLayout
    teacher: FeatureLayout
    resize: Resize = "none"

    def __post_init__(self) -> None:
        if not self.resized:
            return
        sides = (self.student, self.teacher)
        both = " and of ".join(f"{side.label} {side.shape}" for side in sides)
        for side in sides:
            if not side.is_map and len(side.positions) > 1:
                raise ValueError(
                    f"the features of {both} cannot be compared position by position: {side.label} has its own "
                    f"order of them, by window; choose a module outside the windows"
                )
        if self.resize == "none":
            raise ValueError(
                f"the features of {both} differ in height and width; choose modules at the same resolution, and a "
                f"patch size that neither network pads, or set resize: student or teacher"
            )
        for side in sides:
            if not side.is_map:
                side.grid(*side.positions)

    @property
    def resized(self) -> bool:
        """Whether heights and widths differ, so that one side is interpolated."""
        student, teacher = self.student, self.teacher
        if student.is_map == teacher.is_map:
            return student.positions != teacher.positions
        image, tokens = (student, teacher) if student.is_map else (teacher, student)
        return tokens.positions != (math.prod(image.positions),)

    def align(self, student: Tensor, teacher: Tensor, adapter: nn.Module) -> tuple[Tensor, Tensor]:
        """The two features in one shape, the student's adapted.

        Interpolation and adapter commute, since one acts on positions with weights that sum to 1, the other on
        channels; so the adapter acts on the smaller of the two.

        Args:
            student: In its canonical form.
            teacher: In its canonical form.
            adapter: Of the student's feature.

        Returns:
            Both as maps ``(B, C, H, W)`` or both as tokens ``(B, L, C)``.

        Raises:
            ValueError: If their sizes agreed for a training patch and do not for this batch.
        """
        if not self.resized:
            student = adapt(adapter, student)
            if student.dim() != teacher.dim():
                student, teacher = _tokens(student), _tokens(teacher)
            if _positions(student) != _positions(teacher):
                raise ValueError(
                    f"the features of {self.student.label} and of {self.teacher.label} agree in height and width for "
                    f"the training's patches, and not for this batch: {tuple(student.shape)} and "
                    f"{tuple(teacher.shape)}, one of the networks having padded its input; use patches of a size that "
                    f"both take as it is"
                )
            return student, teacher
        student, teacher = _image(self.student, student), _image(self.teacher, teacher)
        if self.resize == "teacher":
            return adapt(adapter, student), _interpolate(teacher, student)
        if student.shape[2:].numel() < teacher.shape[2:].numel():
            return _interpolate(adapt(adapter, student), teacher), teacher
        return adapt(adapter, _interpolate(student, teacher)), teacher

    def notes(self) -> list[str]:
        """Notes on resizing and layouts, for the table of the start-up log."""
        resized = [f"{self.resize} resized"] if self.resized else []
        return resized + describe_layouts(self.student, self.teacher)


def describe_layouts(student: FeatureLayout, teacher: FeatureLayout) -> list[str]:
    """Notes on what the shapes do not show: images as (B, H, W, C), and windows."""
    notes = []
    for side, layout in (("student", student), ("teacher", teacher)):
        notes += [f"{side} nhwc"] * (layout.kind == "nhwc")
        notes += [f"{side} in {layout.shape[0]} windows"] * layout.windowed
    return notes


def _tokens(feature: Tensor) -> Tensor:
    return feature.flatten(2).transpose(1, 2) if feature.dim() == 4 else feature


def _positions(feature: Tensor) -> tuple[int, ...]:
    return tuple(feature.shape[2:] if feature.dim() == 4 else feature.shape[1:2])


def _image(layout: FeatureLayout, feature: Tensor) -> Tensor:
    """A canonical feature as a map."""
    if layout.is_map:
        return feature
    return feature.transpose(1, 2).unflatten(2, layout.grid(feature.shape[1]))


def _interpolate(feature: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(feature, size=like.shape[2:], mode="bilinear", align_corners=False)
