"""A recipe and data sets from dicts that a program has made by hand, as BasicSR's own tests do: nothing that a run adds
is there, neither `name` nor `logger` nor `datasets`."""

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.losses.losses import L1Loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import FileClient, imfrombytes
from basicsr.utils.lmdb_util import make_lmdb_from_imgs


@pytest.fixture
def folders(tmp_path):
    """Two pairs of images at scale 4, as files and as databases."""
    generator = np.random.default_rng(0)
    for role, factor in (("gt", 4), ("lq", 1)):
        (tmp_path / role).mkdir()
        for name, height, width in (("a.b", 16, 18), ("c", 14, 12)):
            image = generator.integers(0, 256, (height * factor, width * factor, 3), np.uint8)
            cv2.imwrite(str(tmp_path / role / f"{name}.png"), image)
        make_lmdb_from_imgs(
            str(tmp_path / role), str(tmp_path / f"{role}.lmdb"), ["a.b.png", "c.png"], ["a.b", "c"], compress_level=1
        )
    return tmp_path


def options_of(folders, backend, **more):
    ending = ".lmdb" if backend == "lmdb" else ""
    roots = {f"dataroot_{role}": f"{folders / role}{ending}" for role in ("gt", "lq")}
    return {"name": "Test", **roots, "io_backend": {"type": backend}, "scale": 4, "phase": "val", **more}


@pytest.fixture
def model():
    network = {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 4}
    train = {
        "ema_decay": 0.999,
        "optim_g": {"type": "Adam", "lr": 2e-4, "weight_decay": 0, "betas": [0.9, 0.99]},
        "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [250000], "restart_weights": [1]},
        "total_iter": 1000000,
        "warmup_iter": -1,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
    }
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": False, "better": "higher"}}
    return SRModel(
        {
            "scale": 4,
            "num_gpu": 0,
            "is_train": True,
            "dist": False,
            "network_g": network,
            "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
            "train": train,
            "val": {"val_freq": 5e3, "save_img": True, "metrics": metrics},
        }
    )


def test_a_recipe_trains_saves_and_restores(model, tmp_path):
    assert isinstance(model.net_g, MSRResNet) and isinstance(model.cri_pix, L1Loss)
    model.feed_data({"lq": torch.rand(1, 3, 8, 8), "gt": torch.rand(1, 3, 32, 32)})
    model.optimize_parameters(1)
    assert isinstance(model.log_dict, dict) and "l_pix" in model.log_dict
    model.opt["path"] |= {"models": str(tmp_path), "training_states": str(tmp_path)}
    model.save(0, 1)
    assert {file.name for file in tmp_path.iterdir()} == {"net_g_1.pth", "1.state"}
    model.test()
    del model.net_g_ema
    model.test()
    assert model.output.shape == (1, 3, 32, 32) and model.net_g.training


def test_a_recipe_validates_in_training_and_in_a_test(model, folders):
    loader = DataLoader(PairedImageDataset(options_of(folders, "lmdb")))
    model.opt["path"]["visualization"] = str(folders / "out")
    model.nondist_validation(loader, 1, None, save_img=True)
    assert isinstance(model.metric_results["psnr"], float)
    model.opt["is_train"] = False
    model.opt["val"]["suffix"] = "test"
    model.nondist_validation(loader, 1, None, save_img=True)
    model.opt["val"]["suffix"], model.opt["name"] = None, "demo"
    model.nondist_validation(loader, 1, None, save_img=True)
    found = sorted(str(file.relative_to(folders / "out")) for file in (folders / "out").rglob("*.png"))
    training = ["a.b/a.b_1.png", "c/c_1.png"]  # the dot is the key's own, and no extension follows
    assert found == sorted(
        [*training, *(f"Test/{name}_{end}.png" for name in ("a.b", "c") for end in ("demo", "test"))]
    )


@pytest.mark.parametrize("backend", ["disk", "lmdb"])
def test_what_plug_ins_read_of_a_dataset(folders, backend):
    opt = options_of(folders, backend, mean=[0.5] * 3, std=[0.5] * 3)
    dataset = PairedImageDataset(opt)
    assert (dataset.opt, dataset.mean, dataset.std, dataset.filename_tmpl) == (opt, [0.5] * 3, [0.5] * 3, "{}")
    path = {"lq_path": "c", "gt_path": "c"} if backend == "lmdb" else dataset.paths[1]
    assert dataset.paths[1] == path and {key: dataset[1][key] for key in path} == path
    single = SingleImageDataset({key: value for key, value in opt.items() if key != "dataroot_gt"})
    assert (single.mean, single.paths[1], single[1]["lq_path"]) == ([0.5] * 3, path["lq_path"], path["lq_path"])
    for found, folder in ((dataset, dataset.gt_folder), (single, single.lq_folder)):  # as BasicSR's __getitem__ does
        assert found.io_backend_opt["type"] == backend and found.file_client is None
        client = FileClient(found.io_backend_opt.pop("type"), **found.io_backend_opt)
        key = path["lq_path"] if found is single else path["gt_path"]
        role = "lq" if found is single else "gt"
        assert imfrombytes(client.get(key, role)).shape[0] == 14 * (4 if folder == opt["dataroot_gt"] else 1)
    assert opt["io_backend"] == {"type": backend}


def test_a_dataset_without_a_storage_reads_files(folders):
    opt = options_of(folders, "disk")
    del opt["io_backend"]
    assert PairedImageDataset(opt).io_backend_opt == {"type": "disk"}
