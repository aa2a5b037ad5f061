"""A plug-in: a recipe that draws from two training sets, and writes down what it was given (to the file FED)."""

import json
import os

from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register()
class TwoStreamModel(SRModel):
    """Learns from the pairs of ``train_s``, and makes its results on the inputs of ``train_t`` flat."""

    streams = ("train_s", "train_t")
    TrainOptions = SRModel.TrainOptions

    def feed_data(self, data):
        if "train_t" in data:
            if "FED" in os.environ:
                with open(os.environ["FED"], "a") as file:
                    print(json.dumps({name: batch["gt_path"] for name, batch in data.items()}), file=file)
            unpaired = {key: value for key, value in data["train_t"].items() if key != "gt"}
            data = {"train_s": data["train_s"], "train_t": unpaired}
        super().feed_data(data)

    def compute_losses(self, current_iter, batch=None):
        losses = super().compute_losses(current_iter, batch)
        flat = self.output[(batch or self.batch).rows["t"]]
        losses["l_flat"] = 0.1 * (flat - flat.mean((2, 3), keepdim=True)).abs().mean()
        return losses
