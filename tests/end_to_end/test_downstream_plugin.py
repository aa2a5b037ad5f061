"""A repository built on BasicSR runs unchanged: its own train.py and test.py, and every kind of class of its own.

It is laid out as such repositories are: a package that imports its members by their file names, a network, a data set
that reads files itself, a recipe that overrides training and validation, a loss and a metric.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from basicsr.utils.misc import scandir

CHECKOUT = Path(__file__).resolve().parents[2]

PIPELINE = """
import os.path as osp

import plainsr.archs  # noqa: F401
import plainsr.data  # noqa: F401
import plainsr.losses  # noqa: F401
import plainsr.metrics  # noqa: F401
import plainsr.models  # noqa: F401
from basicsr.{entry} import {entry}_pipeline

if __name__ == '__main__':
    {entry}_pipeline(osp.abspath(osp.join(__file__, osp.pardir, osp.pardir)))
"""

MEMBERS = """
import importlib
from os import path as osp

from basicsr.utils import scandir

folder = osp.dirname(osp.abspath(__file__))
names = [osp.splitext(osp.basename(v))[0] for v in scandir(folder) if v.endswith('_{kind}.py')]
_modules = [importlib.import_module(f'plainsr.{package}.{{name}}') for name in names]
"""

ARCH = """
from torch import nn

from basicsr.archs.arch_util import ResidualBlockNoBN, Upsample, default_init_weights, make_layer
from basicsr.utils.registry import ARCH_REGISTRY


@ARCH_REGISTRY.register()
class PlainNet(nn.Module):
    def __init__(self, in_chans=3, embed_dim=6, depths=(2, 2), upscale=2, img_range=1., **kwargs):
        super(PlainNet, self).__init__()
        self.first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.body = make_layer(ResidualBlockNoBN, len(depths), num_feat=embed_dim)
        self.up = Upsample(upscale, embed_dim)
        self.last = nn.Conv2d(embed_dim, in_chans, 3, 1, 1)
        default_init_weights([self.first, self.last], 0.1)

    def forward(self, x):
        return self.last(self.up(self.body(self.first(x))))
"""

DATASET = """
from os import path as osp

import numpy as np
from torch.utils import data as data

from basicsr.data.data_util import paired_paths_from_folder
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import FileClient, imfrombytes, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY


@DATASET_REGISTRY.register()
class PlainPairedDataset(data.Dataset):
    def __init__(self, opt):
        super(PlainPairedDataset, self).__init__()
        self.opt = opt
        self.file_client = None
        self.io_backend_opt = opt['io_backend']
        self.gt_folder, self.lq_folder = opt['dataroot_gt'], opt['dataroot_lq']
        self.filename_tmpl = opt['filename_tmpl'] if 'filename_tmpl' in opt else '{}'
        self.noise = opt['noise_range']
        self.paths = paired_paths_from_folder([self.lq_folder, self.gt_folder], ['lq', 'gt'], self.filename_tmpl)

    def __getitem__(self, index):
        if self.file_client is None:
            self.file_client = FileClient(self.io_backend_opt.pop('type'), **self.io_backend_opt)
        scale = self.opt['scale']
        gt_path = self.paths[index]['gt_path']
        img_gt = imfrombytes(self.file_client.get(gt_path, 'gt'), float32=True)
        lq_path = self.paths[index]['lq_path']
        img_lq = imfrombytes(self.file_client.get(lq_path, 'lq'), float32=True)
        if self.opt['phase'] == 'train':
            gt_size = self.opt['gt_size']
            img_gt, img_lq = paired_random_crop(img_gt, img_lq, gt_size, scale, gt_path)
            img_gt, img_lq = augment([img_gt, img_lq], self.opt['use_hflip'], self.opt['use_rot'])
            img_lq = img_lq + np.random.uniform(*self.noise, img_lq.shape).astype(np.float32)
        else:
            img_gt = img_gt[0:img_lq.shape[0] * scale, 0:img_lq.shape[1] * scale, :]
        img_gt, img_lq = img2tensor([img_gt, img_lq], bgr2rgb=True, float32=True)
        return {'lq': img_lq, 'gt': img_gt, 'lq_path': lq_path, 'gt_path': gt_path}

    def __len__(self):
        return len(self.paths)
"""

LOSS = """
import torch
from torch import nn

from basicsr.losses.loss_util import weighted_loss
from basicsr.utils.registry import LOSS_REGISTRY


@weighted_loss
def log_loss(pred, target):
    return torch.log1p((pred - target).abs())


@LOSS_REGISTRY.register()
class LogLoss(nn.Module):
    def __init__(self, loss_weight=1.0, reduction='mean'):
        super(LogLoss, self).__init__()
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred, target, weight=None, **kwargs):
        return self.loss_weight * log_loss(pred, target, weight, reduction=self.reduction)
"""

METRIC = """
import numpy as np

from basicsr.metrics.metric_util import reorder_image
from basicsr.utils.registry import METRIC_REGISTRY


@METRIC_REGISTRY.register()
def calculate_mae(img, img2, crop_border, input_order='HWC', **kwargs):
    img, img2 = reorder_image(img, input_order), reorder_image(img2, input_order)
    return float(np.abs(img.astype(np.float64) - img2.astype(np.float64)).mean())
"""

MODEL = """
from collections import OrderedDict
from copy import deepcopy
from os import path as osp

import torch
from torch.nn import functional as F
from tqdm import tqdm

from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.metrics import calculate_metric
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.registry import MODEL_REGISTRY


@MODEL_REGISTRY.register()
class PlainModel(SRModel):
    def init_training_settings(self):
        self.net_g.train()
        train_opt = self.opt['train']
        self.ema_decay = train_opt.get('ema_decay', 0)
        if self.ema_decay > 0:
            logger = get_root_logger()
            logger.info(f'Use Exponential Moving Average with decay: {self.ema_decay}')
            self.net_g_ema = build_network(self.opt['network_g']).to(self.device)
            load_path = self.opt['path'].get('pretrain_network_g', None)
            if load_path is not None:
                self.load_network(self.net_g_ema, load_path, self.opt['path'].get('strict_load_g', True), 'params_ema')
            else:
                self.model_ema(0)
            self.net_g_ema.eval()
        self.cri_pix = build_loss(train_opt['pixel_opt']).to(self.device)
        self.cri_edge = build_loss(train_opt['edge_opt']).to(self.device)
        self.setup_optimizers()
        self.setup_schedulers()

    def setup_optimizers(self):
        train_opt = self.opt['train']
        optim_params = []
        for k, v in self.net_g.named_parameters():
            if v.requires_grad:
                optim_params.append(v)
        optim_type = train_opt['optim_g'].pop('type')
        self.optimizer_g = self.get_optimizer(optim_type, optim_params, **train_opt['optim_g'])
        self.optimizers.append(self.optimizer_g)

    @torch.no_grad()
    def feed_data(self, data):
        self.lq = data['lq'].to(self.device)
        if 'gt' in data:
            self.gt = data['gt'].to(self.device)
        if self.is_train:
            self.lq = torch.clamp(self.lq, 0, 1)

    def optimize_parameters(self, current_iter):
        self.optimizer_g.zero_grad()
        self.output = self.net_g(self.lq)
        l_total = 0
        loss_dict = OrderedDict()
        l_pix = self.cri_pix(self.output, self.gt)
        l_total += l_pix
        loss_dict['l_pix'] = l_pix
        l_edge = self.cri_edge(self.output[..., 1:] - self.output[..., :-1], self.gt[..., 1:] - self.gt[..., :-1])
        l_total += l_edge
        loss_dict['l_edge'] = l_edge
        l_total.backward()
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(loss_dict)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def test(self):
        window = self.opt['val'].get('window_size', 4)
        h, w = self.lq.size()[-2:]
        img = F.pad(self.lq, (0, -w % window, 0, -h % window), 'reflect')
        if hasattr(self, 'net_g_ema'):
            self.net_g_ema.eval()
            with torch.no_grad():
                self.output = self.net_g_ema(img)
        else:
            self.net_g.eval()
            with torch.no_grad():
                self.output = self.net_g(img)
            self.net_g.train()
        scale = self.opt['scale']
        self.output = self.output[:, :, :h * scale, :w * scale]


@MODEL_REGISTRY.register()
class LoopModel(PlainModel):
    def nondist_validation(self, dataloader, current_iter, tb_logger, save_img):
        dataset_name = dataloader.dataset.opt['name']
        with_metrics = self.opt['val'].get('metrics') is not None
        use_pbar = self.opt['val'].get('pbar', False)
        if with_metrics:
            if not hasattr(self, 'metric_results'):
                self.metric_results = {metric: 0 for metric in self.opt['val']['metrics'].keys()}
            self._initialize_best_metric_results(dataset_name)
            self.metric_results = {metric: 0 for metric in self.metric_results}
        metric_data = dict()
        if use_pbar:
            pbar = tqdm(total=len(dataloader), unit='image')
        for idx, val_data in enumerate(dataloader):
            img_name = osp.splitext(osp.basename(val_data['lq_path'][0]))[0]
            self.feed_data(val_data)
            self.test()
            visuals = self.get_current_visuals()
            sr_img = tensor2img([visuals['result']])
            metric_data['img'] = sr_img
            if 'gt' in visuals:
                metric_data['img2'] = tensor2img([visuals['gt']])
                del self.gt
            del self.lq
            del self.output
            torch.cuda.empty_cache()
            if save_img:
                if self.opt['is_train']:
                    save_img_path = osp.join(self.opt['path']['visualization'], img_name,
                                             f'{img_name}_{current_iter}.png')
                else:
                    save_img_path = osp.join(self.opt['path']['visualization'], dataset_name,
                                             f'{img_name}_{self.opt["name"]}.png')
                imwrite(sr_img, save_img_path)
            if with_metrics:
                for name, opt_ in self.opt['val']['metrics'].items():
                    self.metric_results[name] += calculate_metric(metric_data, opt_)
            if use_pbar:
                pbar.update(1)
                pbar.set_description(f'Test {img_name}')
        if use_pbar:
            pbar.close()
        if with_metrics:
            for metric in self.metric_results.keys():
                self.metric_results[metric] /= (idx + 1)
                self._update_best_metric_result(dataset_name, metric, self.metric_results[metric], current_iter)
            self._log_validation_metric_values(current_iter, dataset_name, tb_logger)


@MODEL_REGISTRY.register()
class SwitchModel(PlainModel):
    def nondist_validation(self, dataloader, current_iter, tb_logger, save_img):
        self.is_train = False  # no synthetic noise on the validation's images
        super(SwitchModel, self).nondist_validation(dataloader, current_iter, tb_logger, save_img)
        self.is_train = True
"""

TRAIN = """
name: plain
model_type: {model}
scale: 2
num_gpu: 0
manual_seed: 0

datasets:
  train:
    name: pictures
    type: PlainPairedDataset
    dataroot_gt: {images}/hr
    dataroot_lq: {images}/lr
    io_backend:
      type: disk
    noise_range: [-0.01, 0.01]
    gt_size: 16
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 2
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 3
    prefetch_mode: ~
  val_1:
    name: few
    type: PlainPairedDataset
    dataroot_gt: {images}/hr
    dataroot_lq: {images}/lr
    noise_range: ~
    io_backend:
      type: disk

network_g:
  type: PlainNet
  in_chans: 3
  embed_dim: 6
  depths: [2, 2]
  upscale: 2
  img_range: 1.
  upsampler: 'pixelshuffle'
  use_checkpoint: false

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.9
  optim_g:
    type: Adam
    lr: !!float 2e-3
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [4]
    gamma: 0.5
  total_iter: 6
  warmup_iter: -1
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
  edge_opt:
    type: LogLoss
    loss_weight: 0.5

val:
  val_freq: !!float 3
  save_img: true
  pbar: False
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 2
      test_y_channel: true
    mae:
      type: calculate_mae
      crop_border: 0
      better: lower

logger:
  print_freq: 1
  save_checkpoint_freq: !!float 3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

dist_params:
  backend: nccl
  port: 29500
"""


@pytest.fixture
def repository(tmp_path, images):
    """The downstream repository, and a function that runs a file of it."""
    package = tmp_path / "plainsr"
    files = {
        "archs": ("arch", ARCH),
        "data": ("dataset", DATASET),
        "losses": ("loss", LOSS),
        "models": ("model", MODEL),
    }
    for name, (kind, text) in files.items():
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(MEMBERS.format(kind=kind, package=name))
        (package / name / f"plain_{kind}.py").write_text(text)
    (package / "metrics").mkdir()
    (package / "metrics" / "__init__.py").write_text("from .mae import calculate_mae\n")
    (package / "metrics" / "mae.py").write_text(METRIC)
    (package / "__init__.py").touch()
    for entry in ("train", "test"):
        (package / f"{entry}.py").write_text(PIPELINE.format(entry=entry))

    def run(entry: str, options: str, *arguments: str) -> str:
        (tmp_path / "x.yml").write_text(options)
        command = [sys.executable, f"plainsr/{entry}.py", "-opt", "x.yml", *arguments]
        environment = {"PYTHONPATH": f".:{CHECKOUT}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stderr

    return tmp_path, run


@pytest.mark.parametrize("model", ["PlainModel", "LoopModel"])
def test_a_downstream_repository_runs_unchanged(repository, images, model):
    """It trains, validates, saves, and its weights are tested by its own test.py, with the same numbers."""
    root, run = repository
    options = TRAIN.format(model=model, images=images)
    log = run("train", options)
    folder = root / "experiments" / "plain"
    assert re.search(r"iter: +6, lr:\(1\.000e-03,\)\].* l_pix: \S+ l_edge: \S+ ", log)
    best = re.findall(r"# (psnr|mae): ([\d.]+)\tBest: ([\d.]+) @ (\d) iter", log)
    assert [name for name, *_ in best] == ["psnr", "mae"] * 2, log[-2000:]
    assert sorted(path.name for path in (folder / "models").iterdir()) == [
        f"net_g_{name}.pth" for name in ("3", "6", "latest")
    ]
    weights = torch.load(folder / "models" / "net_g_6.pth", weights_only=True)
    assert set(weights) == {"params", "params_ema"} and "first.weight" in weights["params"]
    pictures = sorted(scandir(str(folder / "visualization"), recursive=True))
    assert pictures == sorted(f"img.{i}/img.{i}_{iteration}.png" for i in range(4) for iteration in (3, 6))
    if model == "PlainModel":  # LoopModel measures by itself
        assert set(json.loads((folder / "validation.json").read_text())["datasets"]) == {"few"}

    test = options.split("train:\n  ema_decay")[0].replace("  train:\n", "  test_0:\n").replace("val_1:", "test_1:")
    start, end = test.index("  test_0:"), test.index("  test_1:")
    test = test[:start] + test[end:]
    test = test.replace("pretrain_network_g: ~", f"pretrain_network_g: {folder}/models/net_g_6.pth")
    test += (
        "val:\n  save_img: true\n  metrics:\n    psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: true}\n"
    )
    log = run("test", test)
    assert re.search(rf"# psnr: {re.escape(best[2][1])}\b", log), (best, log[-1500:])
    pictures = [path.name for path in (root / "results" / "plain" / "visualization" / "few").iterdir()]
    assert sorted(pictures) == [f"img.{i}_plain.png" for i in range(4)]


def test_a_downstream_run_resumes(repository, images):
    """Also with a recipe that is no longer in training while it validates, as Real-ESRGAN's."""
    root, run = repository
    options = TRAIN.format(model="SwitchModel", images=images)
    log = run("train", options)
    assert len(re.findall(r"# psnr: [\d.]+\tBest: [\d.]+ @ \d iter", log)) == 2
    folder = root / "experiments" / "plain"
    assert set(json.loads((folder / "validation.json").read_text())["datasets"]) == {"few"}
    whole = torch.load(folder / "models" / "net_g_6.pth", weights_only=True)
    for part in ("models/net_g_6.pth", "models/net_g_latest.pth", "training_states/6.state"):
        (folder / part).unlink()
    log = run("train", options, "--auto_resume")
    assert "Resuming training from epoch: 0, iter: 3" in log
    resumed = torch.load(folder / "models" / "net_g_6.pth", weights_only=True)
    for key in ("params", "params_ema"):
        assert all(torch.equal(resumed[key][name], value) for name, value in whole[key].items())
