"""The recipe of a small VQGAN, trained on your own images for the terms that need an encoder and a codebook."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from basicsr.archs.vqgan_arch import VQGANAutoEncoder
from basicsr.engine.batch import Batch
from basicsr.utils.logger import get_root_logger
from basicsr.utils.options.streams import training_sets
from basicsr.utils.registry import MODEL_REGISTRY

from .sr_model import SRModel


@MODEL_REGISTRY.register()
class VQGANModel(SRModel):
    """Trains a :class:`~basicsr.archs.vqgan_arch.VQGANAutoEncoder` to restore images from their codes.

    The images are ``gt`` of a paired dataset, or ``lq`` of one without. The loss is that of Esser et al. (equation 4),
    with ``pixel_opt`` for the reconstruction and without the adversarial part: ``l_rec + codebook_weight · ‖sg[E(x)] −
    e‖² + commitment_weight · ‖E(x) − sg[e]‖²``, means over all elements; ``sg`` stops the gradient. ``perceptual_opt``
    may be added. The log also has ``usage``, the share of the codebook's entries that the batch has used, and
    ``perplexity``, how many entries would be as diverse if used equally often.

    Attributes:
        code_counts: How often each entry was the nearest since the last restart of entries.
    """

    class TrainOptions(SRModel.TrainOptions):
        """Options of ``train`` that this recipe reads."""

        codebook_weight: float = Field(1.0, ge=0)
        """Weight of the term that draws entries to latents."""
        commitment_weight: float = Field(0.25, ge=0)
        """Weight of the term that draws latents to entries (β)."""
        restart_freq: int | None = Field(None, ge=1)
        """Every so many iterations, entries unused since the last time become latents of the batch; never if absent."""

    def init_training_settings(self) -> None:
        net = self.get_bare_model(self.net_g)
        if not isinstance(net, VQGANAutoEncoder):
            raise ValueError(
                f"network_g.type: VQGANModel trains a VQGANAutoEncoder, not {type(net).__name__}; the encoder alone, "
                f"VQGAN, has nothing to restore images with"
            )
        (training_set,) = training_sets(self.opt["datasets"]).values()
        sizes = {"gt_size": [training_set.get("gt_size")], "gt_sizes": training_set.get("gt_sizes") or []}
        for key, size in [(key, size) for key, values in sizes.items() for size in values]:
            if size is not None and size % net.stride:
                raise ValueError(
                    f"datasets.train.{key}: {size} is not a multiple of {net.stride}, the stride of network_g; "
                    f"{max(size // net.stride, 1) * net.stride} is"
                )
        self.code_counts = torch.zeros(len(net.codebook), dtype=torch.int64, device=self.device)
        self._batch_counts = torch.zeros_like(self.code_counts)
        super().init_training_settings()

    def check_losses(self) -> None:
        if self.cri_pix is None:
            raise ValueError("train.pixel_opt is missing: it compares the restored image with the image")

    def feed_data(self, data: dict) -> None:
        """Take a batch: what is restored is compared with what was given."""
        images = data.get("gt", data["lq"])
        super().feed_data({**data, "lq": images, "gt": images})

    def run_student(self, batch: Batch) -> Tensor:
        def restore(images: Tensor) -> Tensor:
            output, self._quantization = self.net_g(images, return_quantization=True)
            return output

        with self.timer.part("student"):
            self.output = self.runtime.run(restore, batch["lq"])
        return self.output

    def compute_losses(self, current_iter: int, batch: Batch | None = None) -> dict[str, Tensor]:
        losses = super().compute_losses(current_iter, batch)
        train = self.opt["train"]
        latent, codes = self._quantization.latent.float(), self._quantization.codes.float()
        indices = self._quantization.indices.flatten()
        self._batch_counts += torch.bincount(indices, minlength=len(self.code_counts))
        return {
            **{"l_rec" if name == "l_pix" else name: value for name, value in losses.items()},
            "l_code": train.get("codebook_weight", 1.0) * F.mse_loss(codes, latent.detach()),
            "l_commit": train.get("commitment_weight", 0.25) * F.mse_loss(latent, codes.detach()),
        }

    def optimize_parameters(self, current_iter: int) -> None:
        self._batch_counts = torch.zeros_like(self.code_counts)
        super().optimize_parameters(current_iter)
        if self.opt["dist"]:  # the same counts on every rank, so that the training state holds them all
            dist.all_reduce(self._batch_counts)
        self.code_counts += self._batch_counts
        self.log_dict = {**self.log_dict, **codebook_use(self._batch_counts)}
        frequency = self.train_options.restart_freq
        if frequency and current_iter % frequency == 0:
            self._restart_unused_codes()

    @torch.no_grad()
    def _restart_unused_codes(self) -> None:
        """Replace unused entries by latents of the batch, drawn at random [ours, after Dhariwal et al., Jukebox, 2020].

        Entries start far from the latents, so that without this a few are drawn to them and the rest are never used.
        """
        tokens = self._quantization.latent.detach().movedim(1, -1).flatten(0, 2).float()
        drawn = torch.randint(len(tokens), (len(self.code_counts),)).to(self.device)
        replacements = tokens[drawn]
        if self.opt["dist"]:
            dist.broadcast(replacements, src=0)
        unused = (self.code_counts == 0)[:, None]
        nets = [self.get_bare_model(self.net_g), *([self.net_g_ema] if hasattr(self, "net_g_ema") else [])]
        for net in nets:
            net.codebook.copy_(torch.where(unused, replacements, net.codebook))
        get_root_logger().debug(f"{int(unused.sum())} entries of the codebook were unused and are restarted.")
        self.code_counts.zero_()

    def extra_training_state(self) -> dict[str, Any]:
        return {**super().extra_training_state(), "code_counts": self.code_counts.cpu()}

    def load_extra_training_state(self, state: dict) -> None:
        super().load_extra_training_state(state)
        if len(state.get("code_counts", ())) != len(self.code_counts):
            raise ValueError(
                f"the training state was not made by a VQGANModel with n_embed {len(self.code_counts)}; resume with "
                f"the options of the run, or start a new run from its weights (path.pretrain_network_g)"
            )
        self.code_counts.copy_(state["code_counts"])


def codebook_use(counts: Tensor) -> dict[str, Tensor]:
    """How evenly a codebook is used.

    Args:
        counts: How often each entry was used (n_embed,), at least one of them once.

    Returns:
        ``usage``, the share of entries used at all, and ``perplexity``, exp of the entropy of their frequencies, from 1
        to n_embed.
    """
    frequencies = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(frequencies, frequencies).sum()
    return {"usage": (counts > 0).double().mean(), "perplexity": entropy.exp()}
