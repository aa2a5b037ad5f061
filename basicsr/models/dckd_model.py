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
    """The contrastive term."""

    type: Literal["ContrasLoss"]
    d_func: Literal["L1", "L2"] = "L1"
    loss_weight: float = 1.0
    weights: list[float] | None = None


class CategoryOptions(schema.Section):
    """The cross-entropy of category distributions."""

    type: Literal["CELoss"]
    loss_weight: float = 1.0
    reduction: Literal["mean", "sum"] = "mean"


@MODEL_REGISTRY.register()
class DCKDModel(KDModel):
    """:class:`KDModel` under the names of DCKD's released option files.

    ``logits_opt`` is read as the term ``ts``. The terms behind ``lcr_opt``, ``cl_opt`` and ``ce_opt`` are not part of
    this version: files with them are checked, and refused when they are to be trained.
    """

    class TrainOptions(KDModel.TrainOptions):
        """Options of ``train`` in DCKD's files."""

        logits_opt: schema.LossOptions | None = None
        """L1 between the student's and the teacher's output; logged as `l_ts`."""
        lcr_opt: schema.LossOptions | None = None
        noisy: NoisyOptions | None = None
        cl_opt: ContrastOptions | None = None
        ce_opt: CategoryOptions | None = None
        num_neg: int = Field(4, ge=1)
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
        ValueError: If a term is asked for that this version does not have, or that is no L1 loss.
    """
    opt = deepcopy(opt)
    train = opt["train"]
    absent = [key for key in ("lcr_opt", "cl_opt", "ce_opt") if train.get(key)]
    if absent:
        raise ValueError(
            f"train.{', train.'.join(absent)}: this version has no such distillation term yet; remove "
            f"{'it' if len(absent) == 1 else 'them'} to train with logits_opt alone"
        )
    terms = dict(train.get("kd_opt") or {})
    logits = train.pop("logits_opt", None)
    if logits:
        criterion = {"L1Loss": "l1", "MSELoss": "l2", "CharbonnierLoss": "charbonnier"}.get(logits["type"])
        if criterion is None or logits.get("reduction", "mean") != "mean":
            raise ValueError("train.logits_opt: expected L1Loss, MSELoss or CharbonnierLoss with reduction: mean")
        terms["ts"] = {"type": "LogitsKD", "criterion": criterion, "loss_weight": logits.get("loss_weight", 1.0)}
    train["kd_opt"] = terms
    return opt
