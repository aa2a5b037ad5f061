"""DCKD's distribution mapping module."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from basicsr.utils.registry import KD_REGISTRY

from .context import KDContext
from .encoders import FrozenEncoder, InputRange, PassOutput
from .networks import Networks
from .term import KDTerm

CHUNK = 4096  # tokens whose distances to all codes are held at once
StudentSide = Literal["log_softmax_of_distance", "release"]


def category_cross_entropy(
    student: Tensor, teacher: Tensor, codebook: Tensor, temperature: float, student_side: StudentSide
) -> Tensor:
    """``−Σ_m C_T^m log C_S^m``, the mean over positions; ``C = softmax_m(−‖F − e_m‖² / temperature)``.

    Source: DCKD (arXiv 2412.08939), Eq. 7-9. ``release`` takes ``log_softmax(C_S)`` for ``log C_S``, as the released
    code does: a softmax of a softmax, which hardly depends on the student.

    Args:
        student: Latents ``(B, D, h, w)``, with gradients.
        teacher: Latents ``(B, D, h, w)``.
        codebook: ``(M, D)``.
        temperature: Above 0.
        student_side: Which logarithm is taken.
    """
    tokens_s, tokens_t = (x.flatten(2).transpose(1, 2).flatten(0, 1) for x in (student, teacher))
    dtype = torch.float64 if student.dtype is torch.float64 else torch.float32
    codes = codebook.to(dtype)
    squares = codes.square().sum(1)

    def chunk_sum(s: Tensor, t: Tensor) -> Tensor:
        # ‖F‖² is the same for all codes and cancels in the softmax
        logits_s, logits_t = ((2 * x.to(dtype) @ codes.t() - squares) / temperature for x in (s, t))
        log_s = logits_s.log_softmax(1) if student_side != "release" else logits_s.softmax(1).log_softmax(1)
        return -(logits_t.softmax(1) * log_s).sum()

    chunks = list(zip(tokens_s.split(CHUNK), tokens_t.split(CHUNK)))
    if len(chunks) == 1:
        return chunk_sum(*chunks[0]) / len(tokens_s)
    return sum(checkpoint(chunk_sum, s, t, use_reentrant=False) for s, t in chunks) / len(tokens_s)


@KD_REGISTRY.register()
class DMM(KDTerm):
    """Matches, position by position, how the student's and the teacher's images fall into the codes of a VQGAN.

    Args:
        encoder: The suffix of the VQGAN's ``network_<encoder>``.
        teacher: The suffix of the teacher's.
        input_range: As in :class:`~basicsr.distill.dcr.DCR`; equal values share one encoding.
        temperature: Of both softmaxes.
        student_side: ``log_softmax_of_distance`` (the paper) or ``release``.
    """

    def __init__(
        self,
        encoder: str = "vqgan",
        teacher: str = "t",
        input_range: InputRange = "[0,1]",
        temperature: PositiveFloat = 1.0,
        student_side: StudentSide = "log_softmax_of_distance",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.teacher = teacher
        self.input_range = input_range
        self.temperature = temperature
        self.student_side = student_side
        self.sources = PassOutput("g"), PassOutput(teacher)
        self._encoder: FrozenEncoder | None = None
        self._rows: list[dict[str, Any]] = []

    def setup(self, networks: Networks) -> None:
        """Check that encoder and teacher are there.

        Raises:
            ValueError: If a network is missing or does not fit.
        """
        networks.require_same_output(self.teacher)
        self._encoder = networks.encoder(self.encoder, self.input_range, latent=True)
        shape = networks.encoding_shapes(self._encoder)["latent"]
        row = {"student": "output", "student_shape": shape, "network": self.encoder, "module": "latent"}
        self._rows = [{**row, "module_shape": shape, "adapter": "–"}]

    def prepare(self, ctx: KDContext) -> None:
        ctx.want_encoding(self._encoder, *self.sources)

    def forward(self, ctx: KDContext) -> Tensor:
        student, teacher = (ctx.latent(self._encoder, source) for source in self.sources)
        return category_cross_entropy(
            student, teacher.detach(), self._encoder.codebook, self.temperature, self.student_side
        )

    def wiring(self) -> list[dict[str, Any]]:
        return self._rows
