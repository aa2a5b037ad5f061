"""A plug-in: a recipe of two domains, unpaired inputs, and recipes as they were written for BasicSR."""

import json
import os
from collections import OrderedDict

from basicsr.archs import build_network
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY


@DATASET_REGISTRY.register()
class UnpairedPatches(PairedImageDataset):
    """Crops of inputs alone."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return {"lq": sample["lq"], "lq_path": sample["lq_path"]}


@MODEL_REGISTRY.register()
class TwoDomainModel(SRModel):
    """Draws from a paired and an unpaired set; says nothing else of its own."""

    streams = ("train_s", "train_t")
    TrainOptions = SRModel.TrainOptions

    def compute_losses(self, current_iter, batch=None):
        if "PARTS" in os.environ:
            paths = {domain: batch["lq_path"][rows] for domain, rows in batch.rows.items()}
            with open(os.environ["PARTS"], "a") as file:
                print(json.dumps([current_iter, paths]), file=file)
        return super().compute_losses(current_iter, batch)


@MODEL_REGISTRY.register()
class OwnSettingsModel(SRModel):
    """Prepares the training by itself, as repositories built on BasicSR do."""

    def init_training_settings(self):
        self.net_g.train()
        train_opt = self.opt["train"]
        self.ema_decay = train_opt.get("ema_decay", 0)
        if self.ema_decay > 0:
            self.net_g_ema = build_network(self.opt["network_g"]).to(self.device)
            self.model_ema(0)
            self.net_g_ema.eval()
        self.cri_pix = build_loss(train_opt["pixel_opt"]).to(self.device)
        self.cri_perceptual = None
        self.setup_optimizers()
        self.setup_schedulers()


@MODEL_REGISTRY.register()
class OwnLossModel(SRModel):
    """Puts a loss of its own in the place of the options'."""

    def init_training_settings(self):
        super().init_training_settings()
        self.cri_pix = build_loss({"type": "MSELoss", "loss_weight": 3.0})


@MODEL_REGISTRY.register()
class OwnIterationModel(SRModel):
    """Has BasicSR's iteration, which knows of no terms."""

    def optimize_parameters(self, current_iter):
        self.optimizer_g.zero_grad()
        self.output = self.net_g(self.lq)
        l_pix = self.cri_pix(self.output, self.gt)
        l_pix.backward()
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(OrderedDict(l_pix=l_pix))
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
