"""Training a small VQGAN: losses, the codebook's use, restarted entries, resuming, and its file used as an encoder."""

import copy
import math

import pytest
import torch

from basicsr.archs.vqgan_arch import VQGAN, Quantization, VQGANAutoEncoder
from basicsr.models.vqgan_model import VQGANModel, codebook_use
from basicsr.utils.img_util import imwrite
from basicsr.utils.options import OptionError
from basicsr.utils.weights import load_weights

from ..helpers import assert_equal, log_text, logged_values, smooth_image, weights

NETWORK = {
    "embed_dim": 4,
    "n_embed": 12,
    "ddconfig": {
        "ch": 32,
        "ch_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
        "resolution": 16,
        "z_channels": 4,
    },
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("images")
    for index in range(4):
        imwrite(smooth_image(index, 22, 26), str(folder / f"{index}.png"))
    return str(folder)


@pytest.fixture
def options(images) -> dict:
    return {
        "name": "vqgan",
        "model_type": "VQGANModel",
        "scale": 1,
        "num_gpu": 0,
        "manual_seed": 3,
        "datasets": {
            "train": {
                "name": "train",
                "type": "PairedImageDataset",
                "dataroot_gt": images,
                "dataroot_lq": images,
                "gt_size": 16,
                "use_hflip": True,
                "use_rot": True,
                "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 4,
                "dataset_enlarge_ratio": 3,
            },
            "val": {"name": "val", "type": "SingleImageDataset", "dataroot_lq": images},
        },
        "network_g": {"type": "VQGANAutoEncoder", **copy.deepcopy(NETWORK)},  # tests change it
        "path": {},
        "train": {
            "ema_decay": 0.5,
            "optim_g": {"type": "Adam", "lr": 2e-3, "betas": [0.5, 0.9]},
            "scheduler": {"type": "MultiStepLR", "milestones": [20]},
            "total_iter": 30,
            "pixel_opt": {"type": "L1Loss"},
            "restart_freq": 4,
        },
        "val": {"val_freq": 30, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 10},
    }


def test_a_run_learns_resumes_and_gives_an_encoder(runner, options):
    folder = runner.train(options)
    rec = logged_values(folder, "l_rec")
    assert len(rec) == 30
    assert sum(rec[-5:]) < 0.8 * sum(rec[:5])
    assert all(len(logged_values(folder, name)) == 30 for name in ("l_code", "l_commit", "usage", "perplexity"))
    assert logged_values(folder, "l_pix") == []
    assert max(logged_values(folder, "usage")[15:]) > 0.5  # entries that nothing was near have been restarted
    # Images of 22×26 pixels are padded to the stride for validation and cropped again.
    assert "# psnr: " in log_text(folder)

    file = folder / "models" / "net_g_latest.pth"
    encoder = VQGAN(**NETWORK).eval()
    assert load_weights(encoder, file, strict=True, param_key="params_ema") == []
    whole = VQGANAutoEncoder(**NETWORK).eval()
    load_weights(whole, file, param_key="params_ema")
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(encoder(2 * x - 1), whole(x, return_quantization=True)[1].latent)

    # Stopped after a checkpoint between two restarts and continued, it ends with the same bits.
    half = {**options, "name": "resumed", "train": {**options["train"], "total_iter": 10}}
    runner.train(half)
    resumed = runner.train({**options, "name": "resumed"}, "--auto_resume")
    assert_equal(weights(resumed), weights(folder), "weights")


# One iteration in this process.


def model(options) -> VQGANModel:
    torch.manual_seed(0)
    return VQGANModel({**options, "is_train": True, "dist": False, "rank": 0, "world_size": 1})


def batch(channels_last=False):
    return {"lq": torch.zeros(2, 3, 8, 8), "gt": torch.rand(2, 3, 16, 16)}


def test_the_losses_are_those_of_the_paper(options):
    options["train"] |= {"codebook_weight": 0.7, "commitment_weight": 0.4, "accumulate": 1}
    recipe = model(options)
    data = batch()
    recipe.feed_data(data)
    recipe._batch_counts = torch.zeros_like(recipe.code_counts)
    losses = recipe.compute_losses(1)
    assert list(losses) == ["l_rec", "l_code", "l_commit"]
    net = recipe.net_g
    latent = VQGAN.forward(net, 2 * data["gt"] - 1)
    distances = (latent.movedim(1, -1)[..., None, :] - net.codebook).square().sum(-1)
    codes = net.codebook[distances.argmin(-1)].movedim(-1, 1)
    image = (net.decoder(net.post_quant_conv(codes)) + 1) / 2
    gap = (latent - codes).square().mean()
    torch.testing.assert_close(losses["l_rec"], (image - data["gt"]).abs().mean())
    torch.testing.assert_close(losses["l_code"], 0.7 * gap)
    torch.testing.assert_close(losses["l_commit"], 0.4 * gap)
    to_codebook, to_latent = (
        torch.autograd.grad(losses[name], parameter, retain_graph=True, allow_unused=True)[0]
        for name, parameter in (("l_code", net.quant_conv.weight), ("l_commit", net.codebook))
    )
    assert to_codebook is None
    assert to_latent is None
    assert torch.equal(recipe._batch_counts, torch.bincount(distances.argmin(-1).flatten(), minlength=12))


def test_a_pixel_loss_that_starts_later(options):
    options["train"]["pixel_opt"]["start"] = 3
    recipe = model(options)
    for iteration, expected in ((2, []), (3, ["l_rec"])):
        recipe.feed_data(batch())
        recipe.optimize_parameters(iteration)
        log = recipe.get_current_log()
        assert [name for name in log if name.startswith("l_")] == [*expected, "l_code", "l_commit"]


def test_codebook_use():
    found = codebook_use(torch.tensor([2, 0, 2, 4]))
    entropy = -(2 * 0.25 * math.log(0.25) + 0.5 * math.log(0.5))
    assert found["usage"].item() == 0.75
    assert found["perplexity"].item() == pytest.approx(math.exp(entropy), rel=1e-12)
    assert codebook_use(torch.full((8,), 3))["perplexity"].item() == pytest.approx(8, rel=1e-12)
    assert codebook_use(torch.tensor([0, 5]))["perplexity"].item() == 1


def test_only_unused_entries_are_restarted(options):
    recipe = model(options)
    latent = torch.randn(2, 4, 3, 3)
    recipe._quantization = Quantization(latent, latent, torch.zeros(2, 3, 3, dtype=torch.int64))
    recipe.code_counts[:5] = 1
    before = recipe.net_g.codebook.detach().clone()
    recipe._restart_unused_codes()
    tokens = {tuple(token) for token in latent.movedim(1, -1).flatten(0, 2).tolist()}
    for net in (recipe.net_g, recipe.net_g_ema):
        assert torch.equal(net.codebook[:5], before[:5])
        assert all(tuple(entry) in tokens for entry in net.codebook[5:].tolist())
    assert recipe.code_counts.sum() == 0


def test_without_gt_the_images_themselves_are_restored(options):
    recipe = model(options)
    images = torch.rand(1, 3, 8, 8)
    recipe.feed_data({"lq": images})
    assert torch.equal(recipe.gt, images)
    recipe.feed_data(batch())
    assert recipe.lq.shape == recipe.gt.shape == (2, 3, 16, 16)
    recipe.test()
    assert recipe.get_current_visuals()["result"].shape == (2, 3, 16, 16)


def test_further_keys_of_the_batch_are_kept(options):
    recipe = model(options)
    recipe.feed_data({**batch(), "lq_path": ["a", "b"], "kernel": torch.ones(2, 3)})
    assert recipe.batch["lq_path"] == ["a", "b"]
    assert torch.equal(recipe.batch["kernel"], torch.ones(2, 3))
    assert recipe.batch["lq"] is recipe.batch["gt"]


# Bad input.


def test_another_network_is_refused(options):
    options["network_g"]["type"] = "VQGAN"
    with pytest.raises(ValueError, match=r"network_g\.type: VQGANModel trains a VQGANAutoEncoder, not VQGAN;"):
        model(options)


def test_crops_that_the_stride_does_not_divide_are_refused(options):
    options["datasets"]["train"]["gt_size"] = 17
    with pytest.raises(ValueError, match=r"gt_size: 17 is not a multiple of 2, the stride of network_g; 16 is"):
        model(options)


def test_a_run_without_a_pixel_loss_is_refused(options):
    del options["train"]["pixel_opt"]
    with pytest.raises(ValueError, match=r"train\.pixel_opt is missing"):
        model(options)


def test_a_state_of_another_recipe_is_refused(options):
    with pytest.raises(ValueError, match="not made by a VQGANModel with n_embed 12"):
        model(options).load_extra_training_state({})


def test_misspelt_options_are_told(runner, options):
    options["train"]["comitment_weight"] = 0.25
    options["network_g"]["ddconfig"]["num_resblocks"] = options["network_g"]["ddconfig"].pop("num_res_blocks")
    with pytest.raises(OptionError) as error:
        runner.train(options)
    assert "did you mean 'commitment_weight'" in str(error.value)
    assert "did you mean 'num_res_blocks'" in str(error.value)
