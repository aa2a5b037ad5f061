"""Names that plug-ins written for BasicSR import, and that they compute what they do there.

Expected values come from the formulas, written out differently, or from a few numbers worked out by hand.
"""

import importlib
import random

import cv2
import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import convolve

NAMES = {
    "archs.swinir_arch": "window_partition window_reverse WindowAttention Mlp DropPath PatchEmbed PatchUnEmbed "
    "PatchMerging UpsampleOneStep Upsample RSTB BasicLayer SwinTransformerBlock SwinIR",
    "archs.vgg_arch": "insert_bn NAMES VGGFeatureExtractor",
    "data": "build_dataset build_dataloader worker_init_fn",
    "data.data_util": "read_img_seq duf_downsample generate_gaussian_kernel",
    "losses.losses": "_reduction_modes L1Loss MSELoss CharbonnierLoss WeightedTVLoss PerceptualLoss l1_loss mse_loss",
    "losses.basic_loss": "_reduction_modes",
    "losses.loss_util": "get_local_weights get_refined_artifact_map",
    "metrics.niqe": "niqe calculate_niqe",
    "models.lr_scheduler": "get_position_from_periods",
    "train": "load_resume_state train_pipeline",
    "utils.img_util": "tensor2img_fast",
    "utils.matlab_functions": "rgb2ycbcr bgr2ycbcr ycbcr2rgb ycbcr2bgr cubic calculate_weights_indices imresize",
    "utils.options": "ordered_yaml yaml_load dict2str parse_options copy_opt_file",
}


@pytest.mark.parametrize("module", NAMES)
def test_the_names_are_there(module):
    found = importlib.import_module(f"basicsr.{module}")
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_cubic_at_points_worked_out_by_hand():
    from basicsr.utils.matlab_functions import cubic

    # (3|x|³ − 5|x|² + 2)/2 up to 1, (−|x|³ + 5|x|² − 8|x| + 4)/2 up to 2, then 0
    x = torch.tensor([0.0, 0.5, -0.5, 1.0, 1.5, -1.5, 2.0, 2.5])
    assert cubic(x).tolist() == [1.0, 0.5625, 0.5625, 0.0, -0.0625, -0.0625, 0.0, 0.0]


@pytest.mark.parametrize(("size", "scale"), [(12, 0.5), (13, 2), (20, 0.7), (17, 3), (16, 0.25)])
@pytest.mark.parametrize("antialiasing", [True, False])
def test_weights_and_indices_are_those_of_imresize(size, scale, antialiasing):
    from basicsr.utils.matlab_functions import calculate_weights_indices, imresize

    length = -(-int(size * scale * 10) // 10)
    weights, indices, before, behind = calculate_weights_indices(size, length, scale, "cubic", 4, antialiasing)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(length))
    row = torch.rand(size)
    padded = torch.cat([row[:before].flip(0), row, row[size - behind :].flip(0)])
    resized = torch.stack([(w * padded[i.long()]).sum() for w, i in zip(weights, indices)])
    expected = imresize(row.expand(size, size), scale, antialiasing)[0]
    torch.testing.assert_close(resized, expected, atol=1e-6, rtol=0)


def test_a_fast_image_rounds_down():
    from basicsr.utils.img_util import tensor2img_fast

    tensor = torch.tensor([0.0, 0.999, 2.0, -1.0, 0.5, 1.0]).view(1, 3, 1, 2)
    red, green, blue = [0, 254], [255, 0], [127, 255]
    assert tensor2img_fast(tensor)[0].T.tolist() == [blue, green, red]
    assert tensor2img_fast(tensor, rgb2bgr=False)[0].T.tolist() == [red, green, blue]
    assert tensor2img_fast(torch.zeros(1, 3, 1, 1), min_max=(-1, 1)).tolist() == [[[127, 127, 127]]]
    assert tensor[0, 1, 0, 0] == 2  # BasicSR's clamps it in place


def test_a_sequence_of_images(tmp_path):
    from basicsr.data.data_util import read_img_seq

    images = np.random.default_rng(0).integers(0, 256, (3, 9, 10, 3), np.uint8)
    for index, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{index:03d}.v.png"), image)
    sequence, names = read_img_seq(str(tmp_path), return_imgname=True)
    expected = torch.from_numpy(images[..., ::-1].astype(np.float32) / 255).permute(0, 3, 1, 2)
    assert torch.equal(sequence, expected) and names == ["000.v", "001.v", "002.v"]
    some = read_img_seq([str(tmp_path / "001.v.png")], require_mod_crop=True, scale=4)
    assert torch.equal(some, expected[1:2, :, :8, :8])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_duf_downsampling_blurs_and_takes_every_nth_pixel(scale):
    from basicsr.data.data_util import duf_downsample

    frames = torch.rand(2, 3, 8 * scale, 9 * scale)
    steps = np.arange(13) - 6
    line = np.exp(-(steps**2) / (2 * (0.4 * scale) ** 2)) * (np.abs(steps) <= int(4 * 0.4 * scale + 0.5))
    window = np.outer(line, line) / line.sum() ** 2
    expected = [[convolve(c.numpy(), window, mode="mirror")[::scale, ::scale] for c in frame] for frame in frames]
    torch.testing.assert_close(duf_downsample(frames, 13, scale), torch.from_numpy(np.array(expected)).float())
    assert duf_downsample(frames[None], 13, scale).shape == (1, 2, 3, 8, 9)
    with pytest.raises(ValueError, match="2, 3 or 4"):
        duf_downsample(frames, 13, 5)


def test_the_artefact_map_of_ldl():
    from basicsr.losses.loss_util import get_local_weights, get_refined_artifact_map

    gt, output, average = torch.rand(3, 2, 3, 8, 9)
    residual = (gt - output).abs().sum(1).numpy()
    padded = np.pad(residual, [(0, 0), (1, 1), (1, 1)], mode="reflect")
    local = np.array(
        [[[padded[b, y : y + 3, x : x + 3].var(ddof=1) for x in range(9)] for y in range(8)] for b in range(2)]
    )
    torch.testing.assert_close(
        get_local_weights(torch.from_numpy(residual)[:, None], 3), torch.from_numpy(local)[:, None].float()
    )
    expected = local * residual.var(axis=(1, 2), ddof=1)[:, None, None] ** 0.2
    expected[residual < (gt - average).abs().sum(1).numpy()] = 0
    torch.testing.assert_close(
        get_refined_artifact_map(gt, output, average, 3), torch.from_numpy(expected)[:, None].float()
    )


def test_the_period_of_an_iteration():
    from basicsr.models.lr_scheduler import get_position_from_periods

    ends = [100, 200, 300, 400]
    found = [get_position_from_periods(iteration, ends) for iteration in (0, 50, 100, 210, 300, 400, 401)]
    assert found == [0, 0, 0, 2, 2, 3, None]


def test_the_layers_of_vgg():
    from basicsr.archs.vgg_arch import NAMES, insert_bn

    assert list(NAMES) == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert [len(names) for names in NAMES.values()] == [21, 25, 31, 37]  # convolutions, as many ReLUs, five poolings
    assert insert_bn(NAMES["vgg11"])[:5] == ["conv1_1", "bn1_1", "relu1_1", "pool1", "conv2_1"]
    assert insert_bn(["conv3_4", "relu3_4"]) == ["conv3_4", "bn3_4", "relu3_4"]


def test_niqe_of_a_plane_is_that_of_its_image():
    from skimage import data

    from basicsr.metrics.niqe import _pristine_model, calculate_niqe, niqe

    plane = data.camera()[:200, :300]
    mean, covariance = _pristine_model()
    line = cv2.getGaussianKernel(7, 7 / 6)
    value = niqe(plane.astype(np.float64), mean[None], covariance, line @ line.T)
    assert value == pytest.approx(calculate_niqe(plane[..., None], 0), rel=1e-4)
    wider = niqe(plane.astype(np.float64), mean, covariance, line @ line.T, 64, 100)
    assert wider != pytest.approx(value, rel=1e-3)
    with pytest.raises(ValueError, match="two blocks of 96×400"):
        niqe(plane, mean, covariance, line, 96, 400)


def test_a_worker_has_a_seed_of_its_own():
    from basicsr.data import worker_init_fn

    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        worker_init_fn(worker_id=2, num_workers=4, rank=1, seed=10)
        drawn = random.random(), np.random.rand()
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
    assert drawn == (random.Random(16).random(), np.random.RandomState(16).rand())


def test_ordered_yaml_reads_and_writes_in_order():
    from basicsr.utils.options import ordered_yaml

    loader, dumper = ordered_yaml()
    text = "b: {z: 1, a: 1e-4}\na: [0.9, 0.99]\n"
    read = yaml.load(text, Loader=loader)
    assert list(read) == ["b", "a"] and list(read["b"]) == ["z", "a"]
    assert read["b"]["a"] == 1e-4
    assert yaml.load(yaml.dump(read, Dumper=dumper), Loader=loader) == read
    with pytest.raises(yaml.YAMLError):
        yaml.load("a: !!python/object/apply:os.getcwd []", Loader=loader)


def test_metrics_refuse_other_shapes_with_both_kinds_of_error():
    from basicsr.metrics import calculate_psnr, calculate_ssim

    for kind in (AssertionError, ValueError):
        for metric in (calculate_psnr, calculate_ssim):
            with pytest.raises(kind, match="of one shape"):
                metric(np.ones((16, 16)), np.ones((10, 10)), crop_border=0)
