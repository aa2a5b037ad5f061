"""Image quality metrics; each is imported on first use."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from basicsr.utils.lazy import lazy_members
from basicsr.utils.registry import METRIC_REGISTRY

_names, __getattr__, __dir__ = lazy_members(
    __name__,
    {
        "niqe": ["calculate_niqe"],
        "psnr_ssim": ["calculate_psnr", "calculate_psnr_pt", "calculate_ssim", "calculate_ssim_pt"],
    },
)

__all__ = [*_names, "calculate_metric"]

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def calculate_metric(data: Mapping[str, Any], opt: Mapping[str, Any]) -> Any:
    """Compute one metric as an option file describes it.

    Args:
        data: The images to measure: ``img`` and, with a ground truth, ``img2``. A metric gets those that it has a
            parameter for.
        opt: ``type``, the registered name, and the metric's own options; ``better`` (higher or lower), by which
            validation finds the best value, is not passed on. Not modified.

    Returns:
        The value of the metric, usually a float.

    Raises:
        ValueError: If there is no ``type``.
        KeyError: If no such metric is registered.
        ValueError: If the metric compares with a ground truth and there is none.
    """
    if "type" not in opt:
        raise ValueError(f"a metric needs the key 'type', as in {{type: calculate_psnr}}; these are given: {dict(opt)}")
    metric = METRIC_REGISTRY.get(opt["type"])
    own_options = {key: value for key, value in opt.items() if key not in ("type", "better")}
    parameters = inspect.signature(metric).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        data = {key: value for key, value in data.items() if key in parameters}
    given = {**data, **own_options}
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in given and p.kind in NAMED]
    if "img2" in missing:
        raise ValueError(f"the metric {opt['type']} compares with a ground truth, and the data set gives none")
    return metric(**given)
