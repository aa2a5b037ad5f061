"""A shipped option file is trained, in miniature: its networks and recipe, on the test's own images."""

import re

import torch

from basicsr.archs.swinir_arch import SwinIR
from basicsr.utils.options import load_options


def test_swinir_logits_distillation(runner, images, tmp_path):
    file = "options/train/SwinIR/train_SwinIR_S_SRx2_logits.yml"
    opt, _ = load_options(file)
    arguments = {key: value for key, value in opt["network_t"].items() if key != "type"}
    torch.manual_seed(0)
    teacher = SwinIR(**arguments)
    torch.save({"params": teacher.state_dict()}, tmp_path / "teacher.pth")
    force = [
        f"path:pretrain_network_t={tmp_path}/teacher.pth",
        f"path:experiments_root={runner.root}/experiments",
        "num_gpu=0",
        *(f"datasets:{name}:dataroot_gt={images}/hr" for name in ("train", "val_1")),
        *(f"datasets:{name}:dataroot_lq={images}/lr" for name in ("train", "val_1")),
        "datasets:val_1:filename_tmpl='{}'",
        "datasets:val_2=~",
        "datasets:val_3=~",
        "datasets:train:gt_size=32",
        "datasets:train:num_worker_per_gpu=0",
        "datasets:train:batch_size_per_gpu=1",
        "train:total_iter=2",
        "logger:print_freq=1",
        "logger:use_tb_logger=false",
    ]
    runner.run("basicsr/train.py", "-opt", file, "--force_yml", *force)
    folder = runner.folder(opt["name"])
    log = next(folder.glob("train_*.log")).read_text()
    assert "network_t  SwinIR  11,752,487  frozen" in log
    assert "network_g  SwinIR  1,087,727   student, trained" in log
    assert len(re.findall(r"l_pix: \S+ l_logits: \S+", log)) == 2
    student = torch.load(folder / "models" / "net_g_latest.pth", weights_only=True)
    network_g = {key: value for key, value in opt["network_g"].items() if key != "type"}
    SwinIR(**network_g).load_state_dict(student["params_ema"], strict=True)
