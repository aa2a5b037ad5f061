"""The name that SwinIR option files use."""

from basicsr.utils.registry import MODEL_REGISTRY

from .sr_model import SRModel


@MODEL_REGISTRY.register()
class SwinIRModel(SRModel):
    """:class:`SRModel`: the padding to ``val.window_size`` is part of its :meth:`~SRModel.test`."""

    TrainOptions = SRModel.TrainOptions
