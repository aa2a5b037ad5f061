"""FitNets: the student's features, through a regressor, imitate the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from basicsr.utils.registry import KD_REGISTRY

from .context import KDContext
from .feature_term import FeatureTerm


@KD_REGISTRY.register()
class FitNets(FeatureTerm):
    """``Σ_i mean (r_i(F_S,i) − F_T,i)²`` over pairs of features, r a learnable 1×1 regressor.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, Eq. 3; with the mean over elements in place
    of half the sum, so that the weight does not depend on the patch size. The paper trains with the hint first and the
    task afterwards; ``end`` in the term's options does that, and without it both are minimised together.

    Args:
        pairs: The modules that are compared; this and the other options are those of
            :class:`~basicsr.distill.feature_term.FeatureTerm`.
        adapter: The regressor; see :func:`~basicsr.distill.adapters.build_adapter`.
    """

    def forward(self, ctx: KDContext) -> Tensor:
        return sum(F.mse_loss(student, teacher) for student, teacher in self.matched_features(ctx))
