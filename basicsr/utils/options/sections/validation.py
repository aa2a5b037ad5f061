"""Validation and test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..finding import Finding, Setting
from ..registered_section import Registered
from ..section import Section
from .numbers import Iterations


class MetricOptions(Registered):
    """A metric: the parameters of a registered function of two images."""

    kind = "metric"
    hints_bind = False
    given = ("img", "img2")
    better: Literal["higher", "lower"] = "higher"
    """Which way is better, for tracking the best iteration."""

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        border = values.get("crop_border")
        if isinstance(border, int) and border < 0:
            yield Finding(("crop_border",), f"must be an integer ≥ 0, not {border}")


class ValOptions(Section):
    """Validation and test settings."""

    unread: ClassVar[tuple[str, ...]] = (
        "center_frame_only",
        "flip_seq",
        "grids",
        "max_minibatch",
        "rgb2bgr",
        "use_chop",
        "use_image",
    )
    val_freq: Iterations | None = None
    """Iterations between validations."""
    save_img: bool = False
    """Write the output images."""
    suffix: str | None = None
    """Ending of the written images' names in a test; the run's name when absent."""
    pbar: bool = True
    """Show a progress bar, in a terminal."""
    window_size: Annotated[int, Field(ge=1)] | None = None
    """Pad inputs by reflection to a multiple of this; to what the network declares when absent."""
    tile: Literal["auto"] | Annotated[int, Field(ge=1)] | None = None
    """Restore in overlapping tiles of this side, in input pixels; `auto`: what memory allows; absent: in one piece."""
    tile_overlap: Annotated[int, Field(ge=0)] | None = None
    """Input pixels that neighbouring tiles share, at most half a tile; 32, or a quarter of the tile, when absent."""
    self_ensemble: bool = False
    """Average over the eight flips and rotations of the input."""
    local_statistics: Annotated[int, Field(ge=1)] | None = None
    """NAFNet: average over windows of 1.5 times a training patch, of which this is the side, instead of the image."""
    metrics: dict[str, MetricOptions] | None = None
    """Metrics by the name they are logged under."""

    @classmethod
    def rules(cls, values: Mapping[Any, Any], setting: Setting) -> Iterable[Finding]:
        tile, overlap = values.get("tile"), values.get("tile_overlap")
        if isinstance(tile, int) and isinstance(overlap, int) and 2 * overlap > tile > 0:
            yield Finding(("tile_overlap",), f"must be at most half of the tile of {tile}, not {overlap}")
        if tile and values.get("local_statistics"):
            yield Finding(("local_statistics",), "cannot be used with tiles, which cut the windows; remove val.tile")
