"""The ``ddconfig`` of a VQGAN: its keys, the levels that follow from it, and how to infer it from weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PositiveInt
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from basicsr.utils.ranges import Probability

NUM_GROUPS = 32
"""Groups of every group normalisation, fixed in the release."""


class DDConfig(TypedDict):
    """Encoder and decoder, under the names of taming-transformers' option files."""

    ch: PositiveInt
    """Channels of the first level."""
    ch_mult: list[PositiveInt]
    """Each level's channels as a multiple of ``ch``; L levels reduce the image by f = 2^(L − 1)."""
    num_res_blocks: PositiveInt
    """Residual blocks of a level of the encoder; the decoder has one more."""
    attn_resolutions: list[PositiveInt]
    """Levels with attention, named by the side that they have in an image of ``resolution``."""
    resolution: PositiveInt
    """Side of the images that the VQGAN was trained on; it only gives ``attn_resolutions`` their meaning."""
    z_channels: PositiveInt
    """Channels of the encoder's output."""
    in_channels: NotRequired[PositiveInt]
    """Channels of the image; 3 when absent."""
    out_ch: NotRequired[PositiveInt]
    """Channels of the decoder's image; 3 when absent."""
    dropout: NotRequired[Probability]
    """Dropout in the residual blocks; 0 when absent."""
    double_z: NotRequired[bool]
    """Must be false: true belongs to autoencoders without a codebook, which predict a mean and a variance."""


@dataclass(frozen=True)
class Level:
    """One resolution of the encoder or decoder.

    Attributes:
        width: Channels.
        has_attention: Whether an attention block follows each residual block.
    """

    width: int
    has_attention: bool


def levels_of(config: DDConfig) -> list[Level]:
    """The levels from the finest to the coarsest.

    Raises:
        ValueError: If the values contradict each other.
    """
    if not config["ch_mult"] or config["num_res_blocks"] < 1:
        raise ValueError("VQGAN's `ddconfig` needs at least one level in `ch_mult` and `num_res_blocks` of at least 1.")
    if config.get("double_z", False):
        raise ValueError("VQGAN's `ddconfig.double_z` must be false: a codebook needs no variance.")
    sides = [config["resolution"] // 2**index for index in range(len(config["ch_mult"]))]
    stray = [side for side in config["attn_resolutions"] if side not in sides]
    if stray:
        raise ValueError(
            f"VQGAN's `ddconfig.attn_resolutions` {stray} is the side of no level: with `resolution` "
            f"{config['resolution']} the levels have the sides {sides}."
        )
    widths = [config["ch"] * factor for factor in config["ch_mult"]]
    if any(width < 1 or width % NUM_GROUPS for width in [config["ch"], *widths]):
        raise ValueError(
            f"VQGAN's `ddconfig.ch` {config['ch']} times `ch_mult` {config['ch_mult']} gives widths of {widths}; each "
            f"must be a multiple of {NUM_GROUPS}, the number of groups of its normalisations."
        )
    return [Level(width, side in config["attn_resolutions"]) for width, side in zip(widths, sides)]


def explain_mismatch(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], options: Mapping[str, Any], resolution: int
) -> str | None:
    """Explain why a checkpoint's encoder, ``quant_conv`` and codebook do not fit a network.

    Args:
        state: The checkpoint's part that should agree.
        own: The same part of the network's state dict.
        options: ``embed_dim``, ``n_embed`` and the entries of ``ddconfig`` by which the network was built.
        resolution: What ``attn_resolutions`` refers to.

    Returns:
        Text that names the options that differ, or the keys if the options agree; None if everything fits.
    """
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    wrong_shape = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if not (missing or unknown or wrong_shape):
        return None
    found = infer_options(state, resolution)
    differing = [
        f"{name} is {_with_factor(name, found[name])} in the checkpoint and {_with_factor(name, options[name])} in the "
        f"options"
        for name in found
        if found[name] != options[name]
    ]
    if differing:
        return f"it is a VQGAN of another configuration: {'; '.join(differing)}"
    parts = (("lacks", missing), ("has beyond the network's", unknown), ("has", wrong_shape))
    return "it " + "; it ".join(f"{verb} {_some(keys)}" for verb, keys in parts if keys)


def infer_options(state: Mapping[str, Tensor], resolution: int) -> dict[str, Any]:
    """Infer options from the keys and shapes of a checkpoint.

    Args:
        state: Keys as in taming-transformers: ``encoder.…``, ``quantize.…``.
        resolution: The side that ``attn_resolutions`` refers to, which weights do not show.
    """
    options: dict[str, Any] = {}
    codebook = state.get("quantize.embedding.weight")
    if codebook is not None and codebook.dim() == 2:
        options["n_embed"], options["embed_dim"] = codebook.shape
    first = state.get("encoder.conv_in.weight")
    if first is not None and first.dim() == 4:
        options["ch"], options["in_channels"] = first.shape[:2]
        blocks = _blocks_of_levels(state)
        widths = [state.get(f"encoder.down.{level}.block.0.conv2.bias") for level in range(len(blocks))]
        if blocks and all(width is not None for width in widths):
            options["ch_mult"] = [width.numel() / options["ch"] for width in widths]
            options["ch_mult"] = [int(factor) if factor.is_integer() else factor for factor in options["ch_mult"]]
            options["num_res_blocks"] = max(blocks)
            options["attn_resolutions"] = [
                resolution // 2**level
                for level in range(len(blocks))
                if f"encoder.down.{level}.attn.0.norm.weight" in state
            ]
    last = state.get("encoder.conv_out.bias")
    if last is not None:
        options["z_channels"] = last.numel()
    return options


def _blocks_of_levels(state: Mapping[str, Tensor]) -> list[int]:
    """The number of residual blocks of each level."""
    places = {tuple(key.split(".")[2:5:2]) for key in state if key.startswith("encoder.down.") and ".block." in key}
    return [sum(level == str(index) for level, _ in places) for index in range(len({level for level, _ in places}))]


def _with_factor(name: str, value: Any) -> str:
    return f"{value} (f{2 ** (len(value) - 1)})" if name == "ch_mult" else str(value)


def _some(keys: list[str], limit: int = 6) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")
