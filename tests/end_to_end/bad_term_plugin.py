"""A plug-in: a term that is NaN for a while."""

from basicsr.distill.term import KDTerm
from basicsr.utils.registry import KD_REGISTRY


@KD_REGISTRY.register()
class BadAt(KDTerm):
    """Is NaN, with NaN gradients, from one iteration to another."""

    def __init__(self, first: int, last: int):
        super().__init__()
        self.first, self.last = first, last

    def forward(self, ctx):
        bad = self.first <= ctx.iteration <= self.last
        return ctx.output.mean() * (float("nan") if bad else 0.0)
