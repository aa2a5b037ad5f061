"""The option files of Restormer and NAFNet: their keys and names are read as ours, and pass the check."""

import copy
from pathlib import Path

import pytest
import yaml

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.models.sr_model import SRModel
from basicsr.utils.options import OptionError, read_options
from basicsr.utils.options.sections import TrainOptions
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

RESTORMER = """
name: Deraining_Restormer
model_type: ImageCleanModel
scale: 1
num_gpu: 8
manual_seed: 100
datasets:
  train:
    name: TrainSet
    type: Dataset_PairedImage
    dataroot_gt: ./Datasets/train/Rain13K/target
    dataroot_lq: ./Datasets/train/Rain13K/input
    filename_tmpl: '{}'
    io_backend: {type: disk}
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    mini_batch_sizes: [8, 5, 4, 2, 1, 1]
    iters: [92000, 64000, 48000, 36000, 36000, 24000]
    gt_size: 384
    gt_sizes: [128, 160, 192, 256, 320, 384]
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val:
    name: ValSet
    type: Dataset_PairedImage
    dataroot_gt: ./Datasets/test/Rain100L/target
    dataroot_lq: ./Datasets/test/Rain100L/input
    io_backend: {type: disk}
network_g:
  type: Restormer
  inp_channels: 3
  out_channels: 3
  dim: 48
  num_blocks: [4, 6, 6, 8]
  num_refinement_blocks: 4
  heads: [1, 2, 4, 8]
  ffn_expansion_factor: 2.66
  bias: False
  LayerNorm_type: WithBias
  dual_pixel_task: False
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~
train:
  total_iter: 300000
  warmup_iter: -1
  use_grad_clip: true
  scheduler:
    type: CosineAnnealingRestartCyclicLR
    periods: [92000, 208000]
    restart_weights: [1, 1]
    eta_mins: [0.0003, 0.000001]
  mixing_augs:
    mixup: true
    mixup_beta: 1.2
    use_identity: true
  optim_g:
    type: AdamW
    lr: !!float 3e-4
    weight_decay: !!float 1e-4
    betas: [0.9, 0.999]
  pixel_opt:
    type: L1Loss
    loss_weight: 1
    reduction: mean
val:
  window_size: 8
  val_freq: !!float 4e3
  save_img: false
  rgb2bgr: true
  use_image: false
  max_minibatch: 8
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: true}
logger:
  print_freq: 1000
  save_checkpoint_freq: !!float 4e3
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""

NAFNET = """
name: NAFNet-GoPro-width32
model_type: ImageRestorationModel
scale: 1
num_gpu: 8
manual_seed: 10
datasets:
  train:
    name: gopro-train
    type: PairedImageDataset
    dataroot_gt: ./datasets/GoPro/train/sharp_crops.lmdb
    dataroot_lq: ./datasets/GoPro/train/blur_crops.lmdb
    filename_tmpl: '{}'
    io_backend: {type: lmdb}
    gt_size: 256
    use_flip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val:
    name: gopro-test
    type: PairedImageDataset
    dataroot_gt: ./datasets/GoPro/test/target.lmdb
    dataroot_lq: ./datasets/GoPro/test/input.lmdb
    io_backend: {type: lmdb}
network_g:
  type: NAFNetLocal
  width: 32
  enc_blk_nums: [1, 1, 1, 28]
  middle_blk_num: 1
  dec_blk_nums: [1, 1, 1, 1]
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~
train:
  optim_g:
    type: AdamW
    lr: !!float 1e-3
    weight_decay: !!float 1e-3
    betas: [0.9, 0.9]
  scheduler:
    type: TrueCosineAnnealingLR
    T_max: 400000
    eta_min: !!float 1e-7
  total_iter: 400000
  warmup_iter: -1
  pixel_opt:
    type: PSNRLoss
    loss_weight: 1
    reduction: mean
val:
  val_freq: !!float 2e4
  save_img: false
  grids: true
  metrics:
    psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: false}
    ssim: {type: calculate_ssim, crop_border: 0, test_y_channel: false}
logger:
  print_freq: 200
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb: {project: ~, resume_id: ~}
dist_params: {backend: nccl, port: 29500}
"""


def published(text):
    opt = yaml.safe_load(text)
    train = opt["datasets"]["train"]
    if text is RESTORMER and "geometric_augs" in PairedImageDataset.Options.model_fields:
        train["geometric_augs"] = True
    return opt


def register(monkeypatch, registry, own):
    monkeypatch.setattr(registry, "_objects", dict(iter(registry)) | {own.__name__: own})


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(opt):
        Path("o.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
        return read_options("o.yml", is_train=True)

    return read


def test_restormers_file(read):
    opt, notices = read(published(RESTORMER))
    assert opt["model_type"] == "SRModel"
    assert [opt["datasets"][name]["type"] for name in ("train", "val")] == ["PairedImageDataset"] * 2
    assert opt["datasets"]["train"]["pad_small"] is True and "pad_small" not in opt["datasets"]["val"]
    assert opt["datasets"]["train"]["gt_sizes"] == [128, 160, 192, 256, 320, 384]
    assert opt["train"]["clip_grad_norm"] == 0.01 and "use_grad_clip" not in opt["train"]
    assert opt["train"]["mixing_augs"] == {"mixup": True, "mixup_beta": 1.2, "use_identity": True}
    text = "\n".join(notices)
    for expected in (
        "model_type (o.yml:2): ImageCleanModel is read as SRModel",
        "Dataset_PairedImage is read as PairedImageDataset",
        "is read as train.clip_grad_norm: 0.01",
    ):
        assert expected in text, text
    for key in ("rgb2bgr", "use_image", "max_minibatch"):
        assert any(f"val.{key}" in notice and "has no effect" in notice for notice in notices)
    assert not any("iters" in notice for notice in notices), "the stages are as long as the run"


def test_nafnets_file(read):
    opt, notices = read(published(NAFNET))
    assert opt["model_type"] == "SRModel"
    assert opt["train"]["clip_grad_norm"] == 0.01, "NAFNet's recipe clips unless it is told not to"
    assert opt["datasets"]["train"]["use_hflip"] is True and opt["datasets"]["train"]["pad_small"] is True
    assert any("ImageRestorationModel is read as SRModel" in notice for notice in notices)
    assert any("clip_grad_norm is 0.01, as ImageRestorationModel clips" in notice for notice in notices)


@pytest.mark.parametrize(
    ("recipe", "given", "norm"),
    [
        ("ImageRestorationModel", {"use_grad_clip": False}, None),
        ("ImageRestorationModel", {"use_grad_clip": True}, 0.01),
        ("ImageRestorationModel", {"clip_grad_norm": 1.0}, 1.0),
        ("ImageCleanModel", {}, None),
        ("ImageCleanModel", {"use_grad_clip": False, "clip_grad_norm": 0.5}, 0.5),
        ("SRModel", {"use_grad_clip": True}, 0.01),
        ("KDModel", {"use_grad_clip": None}, None),
    ],
)
def test_clipping(read, recipe, given, norm):
    opt = published(NAFNET) | {"model_type": recipe}
    opt["train"] |= given
    found, notices = read(opt)
    assert found["train"].get("clip_grad_norm") == norm and "use_grad_clip" not in found["train"]
    assert any("use_grad_clip" in notice for notice in notices) == ("use_grad_clip" in given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"use_grad_clip": True, "clip_grad_norm": 1.0}, r"use_grad_clip .*clip_grad_norm .*is given as well"),
        ({"use_grad_clip": "yes please"}, "use_grad_clip .*must be true or false, not 'yes please'"),
    ],
)
def test_clipping_that_makes_no_sense(read, given, message):
    opt = published(NAFNET)
    opt["train"] |= given
    with pytest.raises(OptionError, match=message):
        read(opt)


def test_the_step_clips_at_the_published_norm(read):
    """What is translated reaches the step."""
    assert SRModel.TrainOptions.of({"clip_grad_norm": 0.01}).clip_grad_norm == 0.01
    assert "use_grad_clip" not in SRModel.TrainOptions.model_fields


def test_classes_of_the_users_keep_their_names_and_keys(read, monkeypatch):
    class ImageCleanModel(SRModel):
        """Restormer's own, imported by the file."""

    class Dataset_PairedImage(PairedImageDataset):
        pass

    register(monkeypatch, MODEL_REGISTRY, ImageCleanModel)
    register(monkeypatch, DATASET_REGISTRY, Dataset_PairedImage)
    opt, notices = read(published(RESTORMER))
    assert opt["model_type"] == "ImageCleanModel" and opt["datasets"]["train"]["type"] == "Dataset_PairedImage"
    assert "pad_small" not in opt["datasets"]["train"]
    assert opt["train"]["use_grad_clip"] is True, "it may read the key itself"
    assert opt["train"]["clip_grad_norm"] == 0.01, "and where it does not, our step clips"


def test_a_recipe_that_declares_the_key_reads_it_itself(read, monkeypatch):
    class Declared(SRModel):
        class TrainOptions(SRModel.TrainOptions):
            use_grad_clip: bool = False

    register(monkeypatch, MODEL_REGISTRY, Declared)
    opt = published(NAFNET) | {"model_type": "Declared"}
    opt["train"]["use_grad_clip"] = True
    found, _ = read(opt)
    assert found["train"]["use_grad_clip"] is True and "clip_grad_norm" not in found["train"]


# Schedules


def train_of(**changes):
    opt = published(RESTORMER)
    for key, value in changes.items():
        section = opt["datasets"]["train"] if key in opt["datasets"]["train"] else opt["train"]
        if value is None:
            section.pop(key)
        else:
            section[key] = value
    return opt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iters": [92000, 64000]}, "gt_sizes has 6, mini_batch_sizes has 6, iters has 2"),
        ({"iters": []}, "iters has 0"),
        ({"iters": None}, "gt_sizes, mini_batch_sizes need iters beside"),
        ({"iters": None, "gt_sizes": None}, "mini_batch_sizes needs gt_sizes and iters beside"),
        ({"iters": [0, 1, 1, 1, 1, 1]}, r"datasets\.train\.iters.*must be a list of integers ≥ 1"),
        ({"gt_sizes": [128, 160, 192, 256, 320, -384]}, r"datasets\.train\.gt_sizes.*must be a list of integers ≥ 1"),
        (
            {"mini_batch_sizes": [8, 5, 4, 2, 1, 0.5]},
            r"datasets\.train\.mini_batch_sizes.*must be a list of integers ≥ 1",
        ),
        ({"mini_batch_sizes": 8}, r"datasets\.train\.mini_batch_sizes.*must be a list"),
        ({"gt_size": 256}, "gt_sizes .*384 is above gt_size, 256"),
        ({"batch_size_per_gpu": 6}, "mini_batch_sizes .*8 is above batch_size_per_gpu, 6"),
        ({"accumulate": 2}, r"accumulate.*a batch of 5 \(datasets.train.mini_batch_sizes\) cannot .* 2 equal parts"),
    ],
)
def test_schedules_that_cannot_work(read, changes, message):
    with pytest.raises(OptionError, match=message) as caught:
        read(train_of(**changes))
    assert len(caught.value.problems) == 1, caught.value.problems


def test_patches_fit_the_scale(read):
    opt = train_of(gt_sizes=[128, 160, 190, 256, 320, 384])
    opt |= {"scale": 4, "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 4}}
    with pytest.raises(OptionError, match=r"gt_sizes .*must be a multiple of the scale 4, which 190 is not"):
        read(opt)


def test_whole_numbers_may_be_written_as_in_published_files(read):
    assert read(train_of(iters=[92e3, 64e3, 48e3, 36e3, 36e3, 24e3]))


@pytest.mark.parametrize(
    ("total", "message"),
    [
        (300000, None),
        (
            400000,
            "the stages are 300000 iterations long and the run 400000; the last stage lasts from iteration 276001",
        ),
        (290000, "the stages are 300000 iterations long and the run 290000"),
        (240000, "the run ends at iteration 240000, before the last 2 of 6 stages"),
        (1000, "the run ends at iteration 1000, before the last 5 of 6 stages"),
    ],
)
def test_stages_that_end_elsewhere_than_the_run_are_a_notice(read, total, message):
    _, notices = read(train_of(total_iter=total))
    found = [notice for notice in notices if "datasets.train.iters" in notice]
    assert len(found) == (message is not None)
    assert message is None or message in found[0]


def test_a_dataset_that_declares_no_schedule_is_refused(read):
    opt = copy.deepcopy(published(RESTORMER))
    train = opt["datasets"]["train"]
    opt["datasets"]["train"] = {key: train[key] for key in train if key not in ("dataroot_gt", "pad_small")}
    opt["datasets"]["train"] |= {"type": "SingleImageDataset"}
    with pytest.raises(OptionError, match=r"datasets\.train\.gt_sizes .*unknown key"):
        read(opt)


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ({"mixup": "often"}, "mixing_augs.mixup .*must be true or false"),
        ({"mixup": True, "mixup_beta": 0}, "mixing_augs.mixup_beta .*must be a number > 0"),
        ({"cutmix": True, "cutmix_alpha": -1}, "mixing_augs.cutmix_alpha .*must be a number > 0"),
        ({"mixupp": True}, "mixing_augs.mixupp .*unknown key; did you mean 'mixup'"),
    ],
)
def test_mixing_that_makes_no_sense(read, mixing, message):
    with pytest.raises(OptionError, match=message):
        read(train_of(mixing_augs=mixing))


def test_mixing_of_nothing_is_a_notice(read):
    _, notices = read(train_of(mixing_augs={"use_identity": True}))
    assert any("use_identity" in notice and "has no effect without mixup or cutmix" in notice for notice in notices)
    assert TrainOptions.of({}).mixing_augs is None
