"""Weights that do not fit their network, explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from basicsr.archs.checkpoint_scale import scale_of_weights
from basicsr.utils.labelled import labelled
from basicsr.utils.weights import read_weights


@contextmanager
def explaining_misfit(opt: Mapping[str, Any], network: str, net: nn.Module, param_key: str | None) -> Iterator[None]:
    """A block that loads the file of ``path.pretrain_<network>``: errors name that option and, where the weights are of
    another scale than the network, say so.

    Args:
        opt: The options of the run.
        network: The network's section: ``network_g``.
        net: The network, without any wrapper.
        param_key: See :func:`basicsr.utils.weights.extract_state_dict`.
    """
    with labelled(f"path.pretrain_{network}"):
        try:
            yield
        except ValueError as error:
            options, file = opt[network], opt["path"][f"pretrain_{network}"]
            scale = scale_of_weights(options, _weights_or_nothing(net, file, param_key))
            if scale is None:
                raise
            raise ValueError(
                f"{file} holds weights of scale {scale}, and {network}.upscale is {options['upscale']}; name the "
                f"weights of scale {options['upscale']}, or set upscale (and the top-level scale) to {scale}"
            ) from error


def _weights_or_nothing(net: nn.Module, file: str, param_key: str | None) -> dict[str, Any]:
    try:
        return read_weights(net, file, param_key)
    except ValueError:
        return {}  # it cannot be read, which the first error says
