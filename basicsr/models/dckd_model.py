"""DCKD's option files (super-SSS/DCKD), read as distillation terms."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

from pydantic import Field

from basicsr.utils import option_schema as schema
from basicsr.utils.registry import MODEL_REGISTRY

from .kd_model import KDModel


class NoisyOptions(schema.Section):
    """Invertible augmentation of the teacher's input."""

    prob: float = Field(0.5, ge=0, le=1)


class ContrastOptions(schema.Section):
    """Dynamic contrastive regularisation."""

    type: Literal["ContrasLoss"]
    d_func: Literal["L1", "L2"] = "L1"
    loss_weight: float = 1.0
    weights: list[float] | None = None


class CategoryOptions(schema.Section):
    """The cross-entropy of category distributions."""

    type: Literal["CELoss"]
    loss_weight: float = 1.0
    reduction: Literal["mean"] = "mean"


@MODEL_REGISTRY.register()
class DCKDModel(KDModel):
    """:class:`KDModel` under the names of DCKD's released option files, computing what the release computes.

    ``logits_opt``, ``lcr_opt``, ``cl_opt`` and ``ce_opt`` become the terms ``ts``, ``lcr``, ``cl`` and ``ce``, so the
    log has the released names. What the paper defines otherwise is set with ``KDModel`` and ``train.kd_opt``.
    """

    class TrainOptions(KDModel.TrainOptions):
        """Options of ``train`` in DCKD's files; the defaults are the released code's."""

        logits_opt: schema.LossOptions | None = None
        """Distance of the student's and the teacher's output; logged as `l_ts`."""
        lcr_opt: schema.LossOptions | None = None
        """L1 of the student's output and the teacher's for an augmented input; logged as `l_lcr`."""
        noisy: NoisyOptions | None = None
        cl_opt: ContrastOptions | None = None
        """Dynamic contrastive regularisation; logged as `l_cl`."""
        ce_opt: CategoryOptions | None = None
        """Distribution mapping; logged as `l_ce`."""
        num_neg: int = Field(4, ge=0)
        update_decay: float = Field(0.1, ge=0, le=1)
        step: list[int] = [1000]
        gaussian_blur_prob: float = Field(1.0, ge=0, le=1)
        resize_prob: float = Field(0.0, ge=0, le=1)
        gaussian_noise_prob: float = Field(0.0, ge=0, le=1)
        gray_noise_prob: float = Field(0.0, ge=0, le=1)

    def __init__(self, opt: dict) -> None:
        super().__init__(translate(opt) if opt["is_train"] else opt)


def translate(opt: dict) -> dict:
    """DCKD's training options with ``train.kd_opt`` in place of its own sections.

    Raises:
        ValueError: If the options ask for what the release does not do.
    """
    opt = deepcopy(opt)
    train = opt["train"]
    has_history = opt.pop("network_his", None)
    terms = dict(train.get("kd_opt") or {})
    logits, lcr, contrast, category = (train.pop(f"{key}_opt", None) for key in ("logits", "lcr", "cl", "ce"))
    noisy = train.pop("noisy", None) or {}
    if logits:
        terms["ts"] = {"type": "LogitsKD", "criterion": _criterion(logits, "logits_opt"), **_weight(logits)}
    if lcr:
        if _criterion(lcr, "lcr_opt") != "l1":
            raise ValueError(f"train.lcr_opt.type: expected L1Loss, not {lcr['type']}")
        terms["lcr"] = {"type": "LCR", "prob": noisy.get("prob", 0.5), **_weight(lcr)}
    degradation = ("gaussian_blur_prob", "resize_prob", "gaussian_noise_prob", "gray_noise_prob")
    defaults = {key: field.default for key, field in DCKDModel.TrainOptions.model_fields.items()}
    history = {key: train.pop(key, defaults[key]) for key in ("num_neg", "update_decay", "step", *degradation)}
    if contrast:
        if not has_history:
            raise ValueError("train.cl_opt needs a history network: add `network_his: true`")
        terms["cl"] = {"type": "DCR", "distance": contrast.get("d_func", "L1"), **history, **_weight(contrast)}
        if contrast.get("weights"):
            terms["cl"]["weights"] = contrast["weights"]
    if category:
        terms["ce"] = {"type": "DMM", "student_side": "release", **_weight(category)}
    train["kd_opt"] = terms
    return opt


def _weight(options: dict) -> dict:
    return {"loss_weight": options.get("loss_weight", 1.0)}


def _criterion(options: dict, key: str) -> str:
    criterion = {"L1Loss": "l1", "MSELoss": "l2", "CharbonnierLoss": "charbonnier"}.get(options["type"])
    extra = options.keys() - {"type", "loss_weight", "reduction"}
    if criterion is None or extra or options.get("reduction", "mean") != "mean":
        raise ValueError(
            f"train.{key}: expected L1Loss, MSELoss or CharbonnierLoss with loss_weight, reduction: mean and no more"
        )
    return criterion
