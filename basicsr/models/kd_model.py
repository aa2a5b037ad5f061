"""The name under which option files ask for distillation."""

from basicsr.utils.registry import MODEL_REGISTRY

from .sr_model import SRModel


@MODEL_REGISTRY.register()
class KDModel(SRModel):
    """:class:`SRModel`: every recipe distils when ``train.kd_opt`` names terms."""

    TrainOptions = SRModel.TrainOptions
