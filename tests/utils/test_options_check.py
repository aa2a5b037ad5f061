import copy
import textwrap

import pytest
import yaml
from torch import nn

from basicsr.utils.options import read_options
from basicsr.utils.options.check import check_options
from basicsr.utils.options.errors import Marks, OptionError
from basicsr.utils.options.files import load_options
from basicsr.utils.options.sections import Registered, TrainOptions
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY, Registry

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2}
PAIRS = {"type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq", "io_backend": {"type": "disk"}}


@pytest.fixture
def opt():
    """A valid KD training."""
    return copy.deepcopy(
        {
            "name": "x",
            "model_type": "KDModel",
            "scale": 2,
            "num_gpu": "auto",
            "manual_seed": 0,
            "datasets": {
                "train": {
                    **PAIRS,
                    "name": "D",
                    "gt_size": 96,
                    "use_hflip": True,
                    "batch_size_per_gpu": 4,
                    "num_worker_per_gpu": 0,
                },
                "val_1": {**PAIRS, "name": "Set5", "filename_tmpl": "{}x2"},
            },
            "network_g": EDSR,
            "network_t": EDSR,
            "network_his": True,
            "path": {
                "pretrain_network_t": "t.pth",
                "strict_load_t": True,
                "param_key_t": "params",
                "resume_state": None,
            },
            "train": {
                "ema_decay": 0.999,
                "total_iter": 1e4,
                "optim_g": {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99], "weight_decay": 0},
                "scheduler": {"type": "MultiStepLR", "milestones": [5], "gamma": 0.5},
                "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
                "kd_opt": {"logits": {"type": "LogitsKD", "loss_weight": 1, "end": None}, "off": None},
            },
            "val": {
                "val_freq": 5e3,
                "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2, "better": "higher"}},
            },
            "logger": {"print_freq": 100, "save_checkpoint_freq": 5e3, "wandb": {"project": None}},
            "dist_params": {"backend": "nccl", "port": 29500},
            "runtime": {"t": {"precision": "bf16", "mean": [0.5], "std": [0.5]}},
        }
    )


def put(opt, path, value):
    *sections, last = path.split(".")
    for section in sections:
        opt = opt.setdefault(section, {})
    if value is DELETE:
        del opt[last]
    else:
        opt[last] = value


DELETE = object()


def problems(opt, is_train=True, **kwargs):
    with pytest.raises(OptionError) as caught:
        check_options(opt, Marks(), is_train, **kwargs)
    return caught.value.problems


def test_valid_options_pass_and_are_left_alone(opt):
    before = copy.deepcopy(opt)
    assert check_options(opt, Marks(), True) == []
    assert opt == before


MISSPELT = [
    ("manual_sed", 1, "manual_sed: unknown key; did you mean 'manual_seed'?"),
    ("netwrok_g", {}, "netwrok_g: unknown key; did you mean 'network_g'?"),
    ("trian", {}, "trian: unknown key; did you mean 'train'?"),
    ("network_g.upsacle", 2, "network_g.upsacle: unknown key; did you mean 'upscale'?"),
    ("network_g.zzz", 2, "network_g.zzz: unknown key; known: img_range, num_block,"),
    ("datasets.train.gt_szie", 96, "datasets.train.gt_szie: unknown key; did you mean 'gt_size'?"),
    (
        "datasets.trian",
        PAIRS,
        "datasets.trian: a dataset's section is named train…, val… or test…, such as `val_1`",
    ),
    ("path.pretrained_network_g", "x", "path.pretrained_network_g: unknown key; did you mean 'pretrain_network_g'?"),
    (
        "path.pretrain_network_tt",
        "x",
        "there is no network_tt to load weights into; did you mean",
    ),
    ("train.pixle_opt", {}, "train.pixle_opt: unknown key; did you mean 'pixel_opt'?"),
    ("train.optm_g", {}, "train.optm_g: unknown key; did you mean 'optim_g'?"),
    ("train.optim_g.beta", [0.9, 0.99], "train.optim_g.beta: unknown key; did you mean 'betas'?"),
    ("train.optim_g.type", "Adamm", "train.optim_g.type: There is no optimizer 'Adamm'. Did you mean 'Adam'?"),
    ("train.scheduler.gama", 0.1, "train.scheduler.gama: unknown key; did you mean 'gamma'?"),
    ("train.scheduler.type", "MultiStepRL", "There is no scheduler 'MultiStepRL'. Did you mean 'MultiStepLR'?"),
    (
        "train.pixel_opt.type",
        "L1Los",
        "train.pixel_opt.type: No object named 'L1Los' is registered as loss.",
    ),
    ("train.pixel_opt.los_weight", 1, "train.pixel_opt.los_weight: unknown key; did you mean 'loss_weight'?"),
    ("train.kd_opt.logits.critrion", "l1", "train.kd_opt.logits.critrion: unknown key; did you mean 'criterion'?"),
    ("train.kd_opt.logits.loss_wieght", 1, "unknown key; did you mean 'loss_weight'?"),
    (
        "train.kd_opt.logits.criterion",
        "charbonier",
        "not 'charbonier'; did you mean 'charbonnier'?",
    ),
    (
        "train.kd_opt.f",
        {"type": "FitNets", "pairs": [{"student": "a", "teacher": "b"}, {"student": "a", "teachr": "b"}]},
        "train.kd_opt.f.pairs.1.teachr: unknown key; did you mean 'teacher'?",
    ),
    ("val.val_frq", 5, "val.val_frq: unknown key; did you mean 'val_freq'?"),
    ("val.metrics.psnr.crop_boder", 2, "val.metrics.psnr.crop_boder: unknown key; did you mean 'crop_border'?"),
    ("val.metrics.psnr.better", "hihger", "must be one of 'higher', 'lower', not 'hihger'; did you mean 'higher'?"),
    ("logger.print_frq", 1, "logger.print_frq: unknown key; did you mean 'print_freq'?"),
    ("logger.wandb.projct", "p", "logger.wandb.projct: unknown key; did you mean 'project'?"),
    ("runtime.t.precison", "bf16", "runtime.t.precison: unknown key; did you mean 'precision'?"),
    ("model_type", "KDModl", "model_type: No object named 'KDModl' is registered as model. Did you mean 'KDModel'"),
    ("network_g.type", "EDRS", "network_g.type: No object named 'EDRS' is registered as arch. Did you mean 'EDSR'"),
    ("datasets.val_1.type", "PairdImageDataset", "Did you mean 'PairedImageDataset'"),
]

WRONG = [
    ("name", 3, "name: must be a string, not 3"),
    ("scale", "2", "scale: must be an integer ≥ 1 or ~, not '2'"),
    ("num_gpu", "all", "num_gpu: must be 'auto' or an integer ≥ 0, not 'all'"),
    ("manual_seed", -1, "manual_seed: must be an integer ≥ 0 and < 4294967296 or ~, not -1"),
    ("network_g", "EDSR", "network_g: must be a section or true or false, not 'EDSR'"),
    ("network_g.num_feat", True, "network_g.num_feat: must be an integer ≥ 1, not true"),
    ("network_g.num_feat", 64.5, "network_g.num_feat: must be an integer ≥ 1, not 64.5"),
    ("network_g.num_feat", None, "network_g.num_feat: must be an integer ≥ 1, not ~"),
    ("network_g.rgb_mean", [0.1, "x"], "network_g.rgb_mean: must be a list of numbers, not [0.1, 'x']"),
    ("network_g.type", 3, "network_g.type: must be the name of a registered arch, not 3"),
    ("datasets", [], "datasets: must be a section, not []"),
    ("datasets.train", None, "datasets.train: must be a section, not ~"),
    ("datasets.train.batch_size_per_gpu", 0, "must be an integer ≥ 1 or ~, not 0"),
    ("datasets.train.gt_size", 97, "datasets.train.gt_size: must be a multiple of the scale 2, such as 96, not 97"),
    ("datasets.train.gt_size", -2, "datasets.train.gt_size: must be a multiple of the scale 2, such as 2, not -2"),
    ("datasets.train.prefetch_mode", "gpu", "must be one of 'cpu', 'cuda' or ~, not 'gpu'"),
    ("datasets.train.mean", [0.5], "datasets.train: mean and std are given together or not at all"),
    ("datasets.test_1", {**PAIRS, "name": "Set5"}, "'Set5' is already the name of datasets.val_1"),
    ("path", "x", "path: must be a section or ~, not 'x'"),
    ("path.strict_load_g", "true", "path.strict_load_g: must be true or false, not 'true'"),
    ("train", [], "train: must be a section or ~, not []"),
    ("train.total_iter", 0.5, "train.total_iter: must be an integer ≥ 1, not 0.5"),
    ("train.ema_decay", 1, "train.ema_decay: must be a number ≥ 0 and < 1, not 1"),
    ("train.clip_grad_norm", 0, "train.clip_grad_norm: must be a number > 0 or ~, not 0"),
    ("train.optim_g.lr", -1, "train.optim_g.lr: must be a number ≥ 0, not -1"),
    ("train.optim_g.lr", "1e-4", "train.optim_g.lr: must be a number ≥ 0, not '1e-4'"),
    ("train.optim_g.betas", [0.9], "train.optim_g.betas: must be a list of 2 numbers, not [0.9]"),
    ("train.scheduler.milestones", 5, "train.scheduler.milestones: must be a list of integers, not 5"),
    ("train.pixel_opt.reduction", "avg", "must be one of 'none', 'mean', 'sum', not 'avg'"),
    ("train.kd_opt", [], "train.kd_opt: must be a section"),
    (
        "train.kd_opt.f",
        {"type": "FitNets", "pairs": [["a", "b"], ["a"]]},
        "f.pairs.1: must be a section or a list of 2 strings or lists of strings, not ['a']",
    ),
    (
        "train.kd_opt.f",
        {"type": "FitNets", "pairs": []},
        "f.pairs: must be a non-empty list of sections or lists of",
    ),
    (
        "train.kd_opt.f",
        {"type": "FitNets", "pairs": [{"student": "a", "teacher": "b", "layout": {"student": "nhcw"}}]},
        "f.pairs.0.layout.student: must be one of 'auto', 'nchw', 'nhwc', 'tokens', not 'nhcw'; did you mean",
    ),
    (
        "train.kd_opt.f",
        {"type": "FitNets", "pairs": [["a", "b"]], "layout": 3},
        "f.layout: must be one of 'auto', 'nchw', 'nhwc', 'tokens' or a section, not 3",
    ),
    ("train.kd_opt.f", {"type": "FitNets", "pairs": [["a", "b"]], "resize": "both"}, "f.resize: must be one of 'none'"),
    ("val.metrics.psnr.crop_border", "2", "val.metrics.psnr.crop_border: must be an integer, not '2'"),
    ("logger.print_freq", 0, "logger.print_freq: must be an integer ≥ 1, not 0"),
    ("dist_params.port", 0, "dist_params.port: must be an integer ≥ 1 and ≤ 65535 or ~, not 0"),
    ("runtime.t.precision", "int8", "must be one of 'auto', 'fp32', 'tf32', 'bf16', 'fp16', not 'int8'"),
    ("runtime.u", {}, "runtime.u: there is no network_u; networks: g, t, his"),
    ("runtime.t.std", None, "runtime.t: mean and std are given together or not at all"),
]

WRONG += [
    (
        "logger.keep_best",
        "Set5/lpips",
        "'Set5/lpips' is measured in no validation; it must be a validation set's name, a",
    ),
    ("logger.keep_best", "D/psnr", "val.metrics: Set5/psnr"),
    ("logger.wandb", {"project": "p"}, "logger.wandb: mirrors TensorBoard: set logger.use_tb_logger to true as well"),
    (
        "train.accumulate",
        3,
        "train.accumulate: a batch of 4 (datasets.train.batch_size_per_gpu) cannot be divided into 3",
    ),
    ("train.pixel_opt.start", 0, "train.pixel_opt.start: must be an integer ≥ 1, not 0"),
    ("train.kd_opt.logits.start", 0, "train.kd_opt.logits.start: must be an integer ≥ 1, not 0"),
    ("train.pixel_opt.loss_weight", -1, "train.pixel_opt.loss_weight: must be a number ≥ 0, not -1"),
    ("train.kd_opt.logits.loss_weight", -1, "train.kd_opt.logits.loss_weight: must be a number ≥ 0, not -1"),
    ("network_g.img_range", 0, "network_g.img_range: must be a number > 0, not 0"),
    ("runtime.g", {"mean": [0.5], "std": [0.5]}, "runtime.g.mean: only a frozen network can be given another"),
    (
        "path.ignore_resume_networks",
        ["network_d"],
        "path.ignore_resume_networks: there is no network_d; networks: netw",
    ),
]

LATE = [
    ("train.scheduler.milestones", [5, 20_000], "train.scheduler.milestones: 20000 is after the end of a run of 10000"),
    ("train.scheduler", {"type": "CosineAnnealingLR", "T_max": 20_000}, "train.scheduler.T_max: the schedule ends at"),
    ("train.warmup_iter", 20_000, "train.warmup_iter: 20000 is after the end of a run of 10000 iterations"),
    (
        "train.kd_opt.logits.start",
        20_000,
        "train.kd_opt.logits.start: 20000 is after the end of a run of 10000",
    ),
    ("train.pixel_opt.start", 20_000, "so it is never active"),
]

MISSING = [
    ("name", "the key 'name' is missing (a string)"),
    ("model_type", "the key 'model_type' is missing"),
    ("datasets", "datasets: the section is missing; it must hold one section per dataset"),
    ("datasets.train", "there is no training set; name its section 'train'"),
    ("datasets.train.name", "datasets.train: the key 'name' is missing"),
    ("datasets.train.type", "datasets.train: the key 'type' is missing"),
    ("datasets.train.gt_size", "datasets.train: a training set must have the key 'gt_size'"),
    ("datasets.train.batch_size_per_gpu", "datasets.train: a training set must have the key 'batch_size_per_gpu'"),
    (
        "datasets.val_1.dataroot_gt",
        "datasets.val_1: the key 'dataroot_gt' is missing (a string or a non-empty list of strings)",
    ),
    ("network_g", "the section 'network_g' is missing"),
    ("network_g.type", "network_g: the key 'type' is missing (the name of a registered arch)"),
    ("network_g.num_in_ch", "network_g: the key 'num_in_ch' is missing (an integer ≥ 1)"),
    ("network_t", "path.pretrain_network_t: there is no network_t"),
    ("train", "the section 'train' is missing; training needs it"),
    ("train.total_iter", "train: the key 'total_iter' is missing (an integer ≥ 1)"),
    ("train.optim_g", "train: there is no optimiser; name its section 'optim_g'"),
    ("train.optim_g.lr", "train.optim_g: the key 'lr' is missing (a number ≥ 0)"),
    ("train.scheduler", "train: the key 'scheduler' is missing (a section)"),
    ("train.scheduler.milestones", "train.scheduler: the key 'milestones' is missing (a list of integers)"),
    ("val.val_freq", "val: the key 'val_freq' is missing"),
    ("val.metrics.psnr.crop_border", "val.metrics.psnr: the key 'crop_border' is missing (an integer)"),
    ("logger", "the section 'logger' is missing; training needs it"),
    ("logger.print_freq", "logger: the key 'print_freq' is missing"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), MISSPELT + WRONG)
def test_what_is_wrong_is_told(opt, path, value, sentence):
    put(opt, path, value)
    assert any(sentence in problem for problem in problems(opt)), problems(opt)


@pytest.mark.parametrize(("path", "value", "sentence"), LATE)
def test_what_lies_beyond_the_end_of_the_run_is_noticed(opt, path, value, sentence):
    put(opt, path, value)
    assert [sentence in notice for notice in check_options(opt, Marks(), True)] == [True]


@pytest.mark.parametrize(
    "options",
    [
        {"pairs": [["a", "b"], [["a", "c"], "b.[01]"], {"student": ["a"], "teacher": "b", "network": "his"}]},
        {"pairs": [{"student": "a", "teacher": "b#1", "layout": "nhwc"}], "adapter": "raw"},
        {"pairs": [{"student": "a", "teacher": "b", "layout": {"teacher": "tokens"}}], "layout": {"student": "nchw"}},
        {"pairs": [["a", "b"]], "adapter": "linear", "resize": "teacher"},
    ],
)
def test_pairs_of_features(opt, options):
    opt["network_his"] = EDSR
    opt["train"]["kd_opt"]["f"] = {"type": "FitNets", **options}
    assert check_options(opt, Marks(), True) == []


def test_a_pair_that_names_no_teacher_means_network_t(opt):
    opt["train"]["kd_opt"] = {"f": {"type": "FitNets", "pairs": [["a", "b"]]}}
    opt["path"] = {}
    del opt["network_t"], opt["runtime"]
    assert any("train.kd_opt.f.pairs.0: network_t is not defined" in problem for problem in problems(opt))


@pytest.mark.parametrize(("path", "sentence"), MISSING)
def test_what_is_missing_is_told(opt, path, sentence):
    put(opt, path, DELETE)
    assert any(sentence in problem for problem in problems(opt)), problems(opt)


def test_all_problems_come_at_once_with_their_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yml").write_text("train:\n  total_itr: 5\n  optim_g: {type: SGD, lr: '1'}\n")
    (tmp_path / "x.yml").write_text(
        textwrap.dedent("""\
            _base_: base.yml
            name: x
            model_type: SRModel
            network_g:
              type: EDSR
              num_in_ch: 3
              num_out_chs: 3
            """)
    )
    opt, marks = load_options("x.yml", ["train:ema_decay=2", "network_g:upscal=2"])
    with pytest.raises(OptionError) as caught:
        check_options(opt, marks, True)
    text = str(caught.value)
    for sentence in (
        "network_g.num_out_chs (x.yml:7): unknown key; did you mean 'num_out_ch'?",
        "network_g (x.yml:4): the key 'num_out_ch' is missing (an integer ≥ 1)",
        "network_g.upscal (--force_yml): unknown key; did you mean 'upscale'?",
        "train.total_itr (base.yml:2): unknown key; did you mean 'total_iter'?",
        "train.optim_g.lr (base.yml:3): must be a number ≥ 0, not '1'",
        "train.ema_decay (--force_yml): must be a number ≥ 0 and < 1, not 2",
        "the option file (x.yml:1): the section 'logger' is missing",
        "the section is missing; it must hold one section per dataset",
    ):
        assert sentence in text
    assert text.startswith(f"{len(caught.value.problems)} problems in the options:\n  - ")


def test_a_test_needs_no_training_sections(opt):
    for section in ("train", "logger", "val"):
        del opt[section]
    opt["datasets"] = {"test_1": opt["datasets"]["val_1"]}
    opt["path"]["pretrain_network_g"] = "g.pth"
    assert check_options(opt, Marks(), False) == []


def test_files_must_exist_only_when_asked(opt, tmp_path):
    found = problems(opt, check_files=True)
    assert any("datasets.train.dataroot_gt: gt does not exist (looked for from " in p for p in found)
    assert any("path.pretrain_network_t: t.pth does not exist" in p for p in found)
    for dataset in opt["datasets"].values():
        dataset["dataroot_gt"] = dataset["dataroot_lq"] = str(tmp_path)
    opt["path"]["pretrain_network_t"] = "https://example.org/t.pth"
    assert check_options(opt, Marks(), True, check_files=True) == []
    opt["path"]["pretrain_network_t"] = str(tmp_path)
    assert problems(opt, check_files=True) == [f"path.pretrain_network_t: {tmp_path} is not a file"]
    opt["path"]["pretrain_network_t"] = None
    opt["datasets"]["train"]["io_backend"]["type"] = "lmdb"
    (tmp_path / "x.lmdb").mkdir()
    opt["datasets"]["train"]["dataroot_gt"] = str(tmp_path / "x.lmdb")
    found = problems(opt, check_files=True)
    assert any("x.lmdb is not an LMDB made by create_lmdb.py: it lacks data.mdb and meta_info.txt" in p for p in found)
    assert any("datasets.train.dataroot_lq" in p and "the folder of an LMDB ends in .lmdb" in p for p in found)


def test_files_of_a_test_are_those_of_its_phase(opt):
    opt["path"] = {}
    opt["datasets"]["val_1"]["dataroot_gt"] = opt["datasets"]["val_1"]["dataroot_lq"] = "."
    opt["datasets"]["test_1"] = {**PAIRS, "name": "T"}
    found = problems(opt, is_train=False, check_files=True)
    assert any("datasets.test_1.dataroot_gt" in p for p in found)


@pytest.fixture
def registered(monkeypatch):
    """Registers classes for one test."""

    def register(registry: Registry, *classes):
        members = {**dict(iter(registry)), **{c.__name__: c for c in classes}}
        monkeypatch.setattr(registry, "_objects", members)

    return register


class PlugModel:
    """A recipe in BasicSR's style: nothing declared."""


class PlugLoss(nn.Module):
    def __init__(self, weight, mode="a", **kwargs):
        super().__init__()


class PlugDataset:
    """A dataset in BasicSR's style."""


def test_plug_ins_may_read_keys_of_their_own(opt, registered):
    registered(MODEL_REGISTRY, PlugModel)
    registered(DATASET_REGISTRY, PlugDataset)
    registered(LOSS_REGISTRY, PlugLoss)
    opt["model_type"] = "PlugModel"
    opt["l1_gt_usm"] = True
    opt["datasets"]["train"] |= {"type": "PlugDataset", "blur_sigma": [0.2, 3]}
    opt["train"] |= {
        "net_d_iter": 1,
        "ldl_opt": {"type": "PlugLoss", "weight": "anything", "whatever": 1},
        "own_opt": {"type": "BuiltByTheRecipe", "x": 1},
        "optim_g": {"type": "Lion", "lr": 1e-4},
        "totl_iter": 5,
    }
    notices = check_options(opt, Marks(), True)
    for start in ("l1_gt_usm:", "datasets.train.blur_sigma:", "train.net_d_iter:", "train.own_opt.type: No object"):
        assert any(n.startswith(start) for n in notices), notices
    assert any("There is no optimizer 'Lion'" in n for n in notices)
    assert any(n.startswith("train.totl_iter") and "did you mean 'total_iter'?" in n for n in notices)
    assert not any("ldl_opt" in n for n in notices), notices


def test_what_a_plug_in_shares_is_still_checked(opt, registered):
    registered(MODEL_REGISTRY, PlugModel)
    registered(DATASET_REGISTRY, PlugDataset)
    opt["model_type"] = "PlugModel"
    opt["datasets"]["train"] |= {"type": "PlugDataset", "batch_size_per_gpu": "4"}
    opt["train"]["total_iter"] = "many"
    opt["train"]["pixel_opt"]["los_weight"] = 1
    opt["train"]["extra_opt"] = {"type": "L1Loss", "reduction": 3}
    found = "\n".join(problems(opt))
    for start in ("datasets.train.batch_size_per_gpu:", "train.total_iter:", "train.pixel_opt.los_weight:"):
        assert start in found
    assert "train.extra_opt.reduction: must be one of" in found


def test_a_recipe_declares_its_keys(opt, registered):
    class Declared:
        class TrainOptions(TrainOptions):
            rounds: int
            "How often."

    class Child(Declared):
        """Inherits the declaration, so it may read more."""

    registered(MODEL_REGISTRY, Declared, Child)
    opt["train"] = {key: opt["train"][key] for key in ("total_iter", "optim_g", "scheduler")}
    opt["model_type"] = "Declared"
    assert problems(opt) == ["train: the key 'rounds' is missing (an integer)"]
    opt["train"]["rounds"] = "2"
    opt["train"]["more"] = 1
    assert len(problems(opt)) == 2
    opt["model_type"] = "Child"
    assert problems(opt) == ["train.rounds: must be an integer, not '2'"]
    opt["train"]["rounds"] = 2
    assert len(check_options(opt, Marks(), True)) == 1


def test_constructors_of_every_style_are_read(opt, registered):
    class Bare(nn.Module):
        pass

    class Untyped(nn.Module):
        def __init__(self, a, b=1, *, c: "NotImportedAtRunTime" = 2):  # noqa: F821
            super().__init__()

    class Inherits(Untyped):
        pass

    class OpenEnded(nn.Module):
        def __init__(self, a: int = 1, **kwargs):
            super().__init__()

    class NoneByDefault(nn.Module):
        def __init__(self, a: int = None):
            super().__init__()

    registered(ARCH_REGISTRY, Bare, Untyped, Inherits, OpenEnded, NoneByDefault)
    del opt["runtime"], opt["path"]
    for good in (
        {"type": "Untyped", "a": "x", "c": [1]},
        {"type": "Inherits", "a": 1, "b": None},
        {"type": "OpenEnded", "anything": 1},
        {"type": "NoneByDefault", "a": None},
        {"type": "Bare"},
    ):
        opt["network_t"] = good
        assert check_options(opt, Marks(), True) == []
    for bad in ({"type": "Untyped"}, {"type": "Inherits", "a": 1, "d": 1}):
        opt["network_t"] = bad
        assert len(problems(opt)) == 1
    for odd in ({"type": "OpenEnded", "a": "x"}, {"type": "NoneByDefault", "a": "x"}):
        opt["network_t"] = odd
        assert len(check_options(opt, Marks(), True)) == 1  # a plug-in's hints are advice


def test_a_notice_for_what_has_no_effect(opt):
    opt["path"]["strict_load_d"] = True
    opt["network_t"] = {**EDSR, "upscale": 4}
    notices = check_options(opt, Marks(), True)
    assert "path.strict_load_d: has no effect, since there is no network_d" in notices
    assert "network_t.upscale: is 4 while the scale is 2" in notices


def test_kinds_of_sections_are_closed():
    assert all(section.kind for section in Registered.__subclasses__())


def test_older_spellings_are_read_and_told(tmp_path, opt):
    train = opt["datasets"]["train"]
    train["use_flip"] = train.pop("use_hflip")
    train["use_shuffle"] = True
    opt["path"] = {"pretrain_model_g": None, "strict_load": False}
    opt |= {"save_img": True, "suffix": None, "crop_border": None}
    (tmp_path / "x.yml").write_text(yaml.safe_dump(opt))
    read, notices = read_options(tmp_path / "x.yml")
    assert read["datasets"]["train"]["use_hflip"] is True
    assert read["path"] == {"pretrain_network_g": None, "strict_load_g": False}
    assert read["val"]["save_img"] is True
    assert len(notices) == 6
    assert any("use_flip" in n and "is read as that" in n for n in notices)


def test_an_older_spelling_beside_the_present_one_has_no_effect(tmp_path, opt):
    opt["datasets"]["train"]["use_flip"] = False
    opt |= {"suffix": "old", "save_img": True}
    opt["val"] |= {"suffix": "new", "save_img": False}
    opt["path"] |= {"strict_load": False, "strict_load_g": True}
    (tmp_path / "x.yml").write_text(yaml.safe_dump(opt))
    read, notices = read_options(tmp_path / "x.yml")
    assert read["datasets"]["train"]["use_hflip"] is True
    assert (read["val"]["suffix"], read["val"]["save_img"], read["path"]["strict_load_g"]) == ("new", False, True)
    passed_over = sorted(notice.partition(" ")[0] for notice in notices if "has no effect" in notice)
    assert passed_over == ["datasets.train.use_flip", "path.strict_load", "save_img", "suffix"]


def test_an_older_name_of_weights_beside_the_present_one_is_an_error(tmp_path, opt):
    opt["path"] |= {"pretrain_model_g": "old.pth", "pretrain_network_g": "new.pth"}
    (tmp_path / "x.yml").write_text(yaml.safe_dump(opt))
    with pytest.raises(OptionError, match="path.pretrain_model_g .*: unknown key"):
        read_options(tmp_path / "x.yml")
