"""DCKD's option files (super-SSS/DCKD), read as distillation terms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from basicsr.utils.options import sections as schema
from basicsr.utils.options.errors import Marks
from basicsr.utils.options.translation import Translation, criterion_of
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

    TrainOptions = KDModel.TrainOptions

    class DialectOptions(schema.Section):
        """Options of ``train`` in DCKD's files; the defaults are the released code's."""

        logits_opt: schema.LossOptions | None = None
        """Distance of the student's and the teacher's output; logged as `l_ts`."""
        lcr_opt: schema.LossOptions | None = None
        """L1 of the student's output and the teacher's for an augmented input; logged as `l_lcr`."""
        noisy: NoisyOptions | None = None
        """The augmentation of `lcr_opt`."""
        cl_opt: ContrastOptions | None = None
        """Dynamic contrastive regularisation; logged as `l_cl`."""
        ce_opt: CategoryOptions | None = None
        """Distribution mapping; logged as `l_ce`."""
        num_neg: int = Field(4, ge=0)
        """Degraded copies of the input among the negatives of `cl_opt`."""
        update_decay: float = Field(0.1, ge=0, le=1)
        """What the history network keeps of itself at an update."""
        step: list[int] = [1000]
        """Iterations between updates of the history network, for each 100,000 iterations."""
        gaussian_blur_prob: float = Field(1.0, ge=0, le=1)
        resize_prob: float = Field(0.0, ge=0, le=1)
        gaussian_noise_prob: float = Field(0.0, ge=0, le=1)
        gray_noise_prob: float = Field(0.0, ge=0, le=1)

    def __init__(self, opt: dict) -> None:
        super().__init__(self.translate(opt))  # options that were not read from a file may still be in the dialect

    @staticmethod
    def translate(opt: dict, marks: Marks | None = None) -> dict:
        """DCKD's options with terms of ``train.kd_opt`` in place of its own sections.

        Args:
            opt: The options; they are left as they are. What is in our form already stays unchanged.
            marks: Where they were written; learns what the terms were written as.

        Raises:
            OptionError: If the options ask for what the release does not do, or give a term twice.
        """
        translation = Translation(opt, marks)
        history = translation.take(("network_his",))
        if history not in (None, True, False):
            translation.refuse(("network_his",), "must be true or false: the history network is a copy of network_g")
        _translate_outputs(translation)
        _translate_encodings(translation, bool(history))
        return translation.result()


def _translate_outputs(translation: Translation) -> None:
    """The terms that compare images."""
    logits, lcr, noisy = (translation.take(("train", key)) for key in ("logits_opt", "lcr_opt", "noisy"))
    if logits:
        source = ("train", "logits_opt")
        criterion = _criterion(translation, logits, source)
        term = {"type": "LogitsKD", "criterion": criterion, **_weight(logits)}
        translation.put(("train", "kd_opt", "ts"), term, source, {"criterion": (*source, "type")})
    if lcr:
        source = ("train", "lcr_opt")
        if _criterion(translation, lcr, source) not in ("l1", None):
            translation.refuse((*source, "type"), f"expected L1Loss, not {lcr['type']}")
        term = {"type": "LCR", "prob": (noisy or {}).get("prob", 0.5), **_weight(lcr)}
        translation.put(("train", "kd_opt", "lcr"), term, source, {"prob": ("train", "noisy", "prob")})


def _translate_encodings(translation: Translation, has_history: bool) -> None:
    """The terms that compare what the encoder makes of the images."""
    contrast, category = (translation.take(("train", key)) for key in ("cl_opt", "ce_opt"))
    fields = DCKDModel.DialectOptions.model_fields
    degradation = ("gaussian_blur_prob", "resize_prob", "gaussian_noise_prob", "gray_noise_prob")
    negatives = {}
    for key in ("num_neg", "update_decay", "step", *degradation):
        given = translation.has(("train", key))
        negatives[key] = translation.take(("train", key)) if given else fields[key].get_default()
    if contrast:
        source = ("train", "cl_opt")
        if not has_history:
            translation.refuse(source, "needs a history network: add `network_his: true`")
        term = {"type": "DCR", "distance": contrast.get("d_func", "L1"), **negatives, **_weight(contrast)}
        if contrast.get("weights"):
            term["weights"] = contrast["weights"]
        parts = {"distance": (*source, "d_func"), **{key: ("train", key) for key in negatives}}
        translation.put(("train", "kd_opt", "cl"), term, source, parts)
    if category:
        term = {"type": "DMM", "student_side": "release", **_weight(category)}
        translation.put(("train", "kd_opt", "ce"), term, ("train", "ce_opt"))


def _weight(options: dict) -> dict:
    return {"loss_weight": options.get("loss_weight", 1.0)}


def _criterion(translation: Translation, loss: dict, source: tuple[str, str]) -> str | None:
    try:
        return criterion_of(loss)
    except ValueError as error:
        translation.refuse(source, str(error))
        return None
