"""The start of a run: what `basicsr check` refuses it refuses, with the same sentence, and touches nothing."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_flatten

from basicsr.archs import build_network
from basicsr.cli import main
from basicsr.data.memmap.writer import create_memmap
from basicsr.utils.img_util import imread, imwrite
from basicsr.utils.labelled import sentence_of
from basicsr.utils.matlab_functions import imresize

from ..helpers import content

VQGAN = {
    "type": "VQGAN",
    "embed_dim": 8,
    "n_embed": 16,
    "ddconfig": {
        "double_z": False,
        "z_channels": 8,
        "resolution": 32,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}

PLUGIN = str(Path(__file__).with_name("start_plugin.py"))


def tree(root):
    """Every file and folder below, with what is in it."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


@pytest.fixture
def refused(runner, monkeypatch, capsys):
    """Check that options are refused, by the check and by the run, with one sentence, and that no file changes."""

    def check(options: dict, pattern: str, is_train: bool = True) -> str:
        earlier = runner.root / ("experiments" if is_train else "results") / options["name"]
        for folder in (earlier, runner.root / "tb_logger" / options["name"]):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "earlier.log").write_text("an earlier run")
        if is_train:
            options["logger"]["use_tb_logger"] = True
        file = runner.write(options)
        before = tree(runner.root)
        capsys.readouterr()
        assert main(["check", file]) == 1
        out = capsys.readouterr().out
        assert out.startswith(f"{file}: WRONG\n")
        assert re.search(pattern, out), out
        with pytest.raises((ValueError, KeyError, OSError, RuntimeError)) as failure:
            (runner.train if is_train else runner.test)(options)
        assert sentence_of(failure.value).strip() in out
        assert tree(runner.root) == before
        return out

    return check


def copied(images: Path, folder: Path, scale: int = 2, name: str = "{}") -> Path:
    """LQ images of another scale, or of other names."""
    for file in sorted((images / "hr").iterdir()):
        lq = imresize(imread(str(file)), 1 / scale) if scale > 1 else imread(str(file))
        imwrite(lq, str(folder / f"{name.format(file.stem)}.png"))
    return folder


def feature(**pair) -> dict:
    return {"feat": {"type": "FitNets", "pairs": [{"student": "body.1", "teacher": "body.2"} | pair]}}


def dcr(**change) -> dict:
    return {"dcr": {"type": "DCR", "weights": [0.5, 1.0], "num_neg": 1} | change}


def add_vqgan(options, terms):
    options["network_vqgan"] = VQGAN
    options["train"]["kd_opt"] = terms


def save(network: dict, file: Path) -> str:
    torch.manual_seed(0)
    torch.save({"params": build_network(network).state_dict()}, file)
    return str(file)


TERMS = {
    "wrong tap": (
        lambda o, tmp: o["train"].update(kd_opt=feature(teacher="bodi.2")),
        r"train\.kd_opt\.feat: no module of network_t matches 'bodi\.2'; near misses: body\.2",
    ),
    "feature sizes": (
        lambda o, tmp: o["train"].update(kd_opt=feature(teacher="upsample")),
        r"train\.kd_opt\.feat: .*differ in height and width",
    ),
    "levels": (
        lambda o, tmp: add_vqgan(o, dcr(weights=[1.0] * 5)),
        r"train\.kd_opt\.dcr: network_vqgan has \d levels, but there are 5 weights",
    ),
    "no average": (
        lambda o, tmp: (add_vqgan(o, dcr()), o["train"].pop("ema_decay")),
        r"train\.kd_opt\.dcr: history_source: ema follows the student's average; set train\.ema_decay above 0",
    ),
    "teacher of another scale": (
        lambda o, tmp: o["network_t"].update(upscale=4),
        r"train\.kd_opt\.logits: network_g gives an image of shape .* they must agree \(check upscale",
    ),
    "late term": (
        lambda o, tmp: o["train"]["kd_opt"].update(late={"type": "FitNets", "start": 9, "pairs": [{"student": "x"}]}),
        r"train\.kd_opt\.late",
    ),
    "best of no metric": (
        lambda o, tmp: o["logger"].update(keep_best="val/lpips"),
        r"logger\.keep_best.*val/psnr",
    ),
    "no teacher": (
        lambda o, tmp: o["path"].update(pretrain_network_t=None),
        r"path\.pretrain_network_t is not set, so network_t would have random weights .* set .* to random",
    ),
}


@pytest.mark.parametrize("change, pattern", TERMS.values(), ids=TERMS)
def test_terms_that_cannot_work(refused, options, tmp_path, change, pattern):
    change(options, tmp_path)
    refused(options, pattern)


def test_weights_of_another_scale(refused, options, tmp_path):
    file = save({**options["network_g"], "upscale": 4}, tmp_path / "x4.pth")
    options["path"] = {"pretrain_network_g": file}
    refused(options, r"path\.pretrain_network_g: .*x4\.pth holds weights of scale 4, and network_g\.upscale is 2")
    options["path"] = {"pretrain_network_t": save({**options["network_t"], "upscale": 4}, tmp_path / "t.pth")}
    refused(options, r"path\.pretrain_network_t: .*t\.pth holds weights of scale 4, and network_t\.upscale is 2")


def test_weights_of_another_network(refused, options, tmp_path):
    options["path"] = {"pretrain_network_g": save(options["network_t"], tmp_path / "t.pth")}
    refused(options, r"path\.pretrain_network_g: .*does not fit EDSR\. Keys .*Check the network's options")


def test_alexnet_as_vgg(refused, options, tmp_path):
    torch.save(
        {"features.0.weight": torch.zeros(64, 3, 11, 11), "features.0.bias": torch.zeros(64)}, tmp_path / "a.pth"
    )
    loss = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1.0}, "vgg_type": "vgg11"}
    loss = {**loss, "layer_weights": {"relu1_1": 1.0}, "weights": str(tmp_path / "a.pth")}
    options["train"]["perceptual_opt"] = loss
    refused(options, r"train\.perceptual_opt: .*a\.pth does not fit. Keys 1 of wrong shape: features\.0\.weight \[64")


@pytest.mark.parametrize("section", ["train", "val"])
class TestData:
    def test_template_is_missing(self, refused, options, images, tmp_path, section):
        options["datasets"][section]["dataroot_lq"] = str(copied(images, tmp_path / "data", name="{}x2"))
        refused(
            options, rf"datasets\.{section}: .*lacks the lq.*Set filename_tmpl to '{{}}x2', with which they make pairs"
        )

    def test_empty_folder(self, refused, options, tmp_path, section):
        (tmp_path / "empty").mkdir()
        options["datasets"][section]["dataroot_gt"] = str(tmp_path / "empty")
        refused(options, rf"datasets\.{section}: the folder .*empty holds no images")

    def test_another_sets_gt(self, refused, options, images, tmp_path, section):
        options["datasets"][section]["dataroot_lq"] = str(copied(images, tmp_path / "data", name="other_{}"))
        shutil.copy(images / "lr" / "img.0.png", tmp_path / "data" / "zebra.png")
        refused(
            options, rf"datasets\.{section}: .*There are 4 GT and 5 LQ images; check that both are of the same data set"
        )

    def test_swapped_folders(self, refused, options, images, section):
        options["datasets"][section] |= {"dataroot_gt": f"{images}/lr", "dataroot_lq": f"{images}/hr"}
        refused(options, rf"datasets\.{section}: .*dataroot_gt and dataroot_lq look swapped")

    def test_swapped_folders_of_other_names(self, refused, options, images, tmp_path, section):
        lq = str(copied(images, tmp_path / "data", name="{}x2"))
        options["datasets"][section] |= {"dataroot_gt": lq, "dataroot_lq": f"{images}/hr", "filename_tmpl": "{}x2"}
        refused(options, rf"datasets\.{section}: .*look swapped: the other way round they make pairs")

    def test_another_scale(self, refused, options, images, tmp_path, section):
        options["datasets"][section]["dataroot_lq"] = str(copied(images, tmp_path / "data", scale=4))
        refused(options, rf"datasets\.{section}: .*LQ is 4 times smaller: set dataroot_lq to the images of scale 2")

    def test_decoded_images_read_as_files(self, refused, options, images, tmp_path, section):
        create_memmap(str(images / "hr"), str(tmp_path / "hr.memmap"))
        options["datasets"][section]["dataroot_gt"] = str(tmp_path / "hr.memmap")
        refused(
            options,
            rf"datasets\.{section}: .*hr\.memmap holds decoded images; read it with io_backend: {{type: memmap}}",
        )

    def test_damaged_image(self, refused, options, images, tmp_path, section):
        folder = copied(images, tmp_path / "data")
        for file in folder.iterdir():
            file.write_bytes(file.read_bytes()[:60])
        options["datasets"][section]["dataroot_lq"] = str(folder)
        refused(options, rf"datasets\.{section}: cannot read the lq image")


def test_crop_larger_than_the_images(refused, options):
    options["datasets"]["train"]["gt_size"] = 64
    refused(options, r"datasets\.train: .*is smaller than a crop of 64×64; reduce gt_size or remove the image")


def test_metric_that_the_images_are_too_small_for(refused, options):
    options["val"]["metrics"]["psnr"]["crop_border"] = 30
    refused(options, r"val\.metrics\.psnr: .*30")


def test_metric_without_ground_truth(refused, options, images):
    options["datasets"]["val"] = {"name": "val", "type": "SingleImageDataset", "dataroot_lq": f"{images}/lr"}
    refused(options, r"val\.metrics\.psnr: the metric calculate_psnr compares with a ground truth")


def test_a_late_term_that_fails_in_its_step(refused, options, tmp_path):
    options["imports"] = [PLUGIN]
    options["train"]["kd_opt"]["late"] = {"type": "Transposed", "start": 9}
    refused(options, r"size of tensor")


def test_a_state_of_other_options(runner, refused, options):
    folder = runner.train({**options, "name": "other"})
    options["path"] = {"resume_state": str(folder / "training_states" / "8.state")}
    options["train"]["kd_opt"].pop("logits")
    options["train"]["kd_opt"]["again"] = {"type": "LogitsKD"}
    refused(
        options, r"the training state holds the distillation terms logits, feat, and train\.kd_opt names feat, again"
    )


def test_of_a_test(refused, options, images, tmp_path):
    test = {key: options[key] for key in ("scale", "num_gpu", "manual_seed", "network_g")}
    test |= {"name": "tiny_test", "model_type": "SRModel", "val": {"metrics": options["val"]["metrics"]}}
    test["datasets"] = {"test_1": options["datasets"]["val"]}
    x4 = save({**options["network_g"], "upscale": 4}, tmp_path / "x4.pth")
    refused({**test, "path": {"pretrain_network_g": x4}}, r"path\.pretrain_network_g: .*of scale 4", is_train=False)
    test["datasets"]["test_1"] |= {"dataroot_gt": f"{images}/lr", "dataroot_lq": f"{images}/hr"}
    refused({**test, "path": {}}, r"datasets\.test_1: .*look swapped", is_train=False)


@pytest.fixture
def plugin(options):
    options["imports"] = [PLUGIN]
    return options


def without_trials(monkeypatch):
    for name in ("try_step", "try_evaluation"):
        monkeypatch.setattr(f"basicsr.start.{name}", lambda *arguments: None)


def log_text(folder):
    (file,) = folder.glob("train_*.log")
    return file.read_text()


def final_state(folder):
    files = ("models/net_g_12.pth", "training_states/12.state")
    return [content(folder / file) for file in files]


def add_counting_terms(options):
    options["train"]["kd_opt"]["count"] = {"type": "Counting"}
    options["train"]["pixel_opt"]["start"] = 5
    options["train"]["combine"] = "uncertainty"
    options["model_type"] = "Remembering"


def train_vqgan(options):
    network = {"type": "VQGANAutoEncoder", "embed_dim": 4, "n_embed": 8, "ddconfig": VQGAN["ddconfig"]}
    options |= {"model_type": "VQGANModel", "network_g": network, "scale": 1}
    options.pop("network_t")
    options["train"].pop("kd_opt")
    options["train"]["restart_freq"] = 5
    for section in options["datasets"].values():
        section["dataroot_lq"] = section["dataroot_gt"]


def add_history(options):
    add_vqgan(options, {**dcr(step=[3]), "dmm": {"type": "DMM", "start": 4}})


RECIPES = {
    "terms": lambda options: None,
    "states": add_counting_terms,
    "history": add_history,
    "vqgan": train_vqgan,
    "parts": lambda options: options["train"].update(accumulate=3),
}


@pytest.mark.parametrize("change", RECIPES.values(), ids=RECIPES)
def test_a_trial_changes_no_number(runner, plugin, monkeypatch, change):
    """Weights, optimisers, terms, random states: all that a run keeps is the same, bit for bit, without the trials."""
    change(plugin)
    one = final_state(runner.train(plugin))
    without_trials(monkeypatch)
    other = final_state(runner.train({**plugin, "name": "without"}))
    (values, structure), (others, their_structure) = tree_flatten(one), tree_flatten(other)
    assert structure == their_structure
    assert one[1]["iter"] == 12 and one[1].get("history", [12])[-1] == 12
    for value, their in zip(values, others):
        assert torch.equal(value, their) if isinstance(value, torch.Tensor) else value == their


def test_a_recipe_with_an_iteration_of_its_own_is_not_tried(runner, plugin, capsys):
    plugin["model_type"] = "OwnIteration"
    assert main(["check", runner.write(plugin)]) == 0
    folder = runner.train(plugin)
    assert (folder / "models" / "net_g_latest.pth").is_file()


def test_a_trial_compiles_nothing(runner, options, monkeypatch):
    """It has other sizes than the run, for which the code would be compiled again, and otherwise."""
    from torch._dynamo.utils import counters

    from basicsr.engine.run.loop import TrainingLoop

    options["runtime"] = {"g": {"compile": True}, "t": {"compile": True}}
    monkeypatch.setattr(TrainingLoop, "run", lambda loop: None)
    counters.clear()
    runner.train(options)
    assert not counters["frames"]


def test_what_passes_starts(runner, options, capsys):
    file = runner.write(options)
    before = tree(runner.root)
    assert main(["check", file]) == 0
    out = capsys.readouterr()
    assert re.fullmatch(rf"{file}: ok \(\d+\.\d s\)\n  note: network_t has RANDOM weights: .* is random\.\n", out.out)
    assert "INFO" not in out.err and tree(runner.root) == before
    runner.train(options)


def test_the_log_tells_the_machine_the_options_and_what_is_built(runner, options):
    options["train"]["warmup"] = 3
    options["train"].pop("warmup")
    options["path"]["strict_load_x"] = True  # a notice
    log = log_text(runner.train(options))
    lines = [
        "BasicSR-KD ",
        "name: tiny",
        "path.strict_load_x",
        "Dataset [PairedImageDataset] - train is built",
        "Number of val images/folders in val: 4",
        "Network: EDSR",
        "network_t has RANDOM weights",
        "Distillation\n",
        "Model [KDModel] is created",
        "Start training from epoch: 0, iter: 0",
    ]
    places = [log.find(line) for line in lines]
    assert -1 not in places and places == sorted(places)
    assert all(log.count(line) == 1 for line in lines)


def test_of_two_runs_in_one_process_each_has_its_log(runner, options):
    first = runner.train(options)
    length = len(log_text(first))
    runner.train({**options, "name": "second"})
    with pytest.raises(ValueError, match="random weights"):
        runner.train({**options, "name": "third", "path": {"pretrain_network_t": None}})
    assert len(log_text(first)) == length


def test_a_refusal_is_a_sentence_and_has_its_exit_code(launcher, options):
    options["network_t"]["upscale"] = 4
    run = launcher.start(options)
    assert run.wait() == 2
    assert "Traceback" not in run.text
    assert run.text.endswith("number of output channels)\n(The run did not start: nothing was written.)\n")
    assert not (launcher.root / "experiments").exists()


def test_an_error_of_a_plugin_keeps_its_traceback(launcher, plugin):
    plugin["train"]["kd_opt"]["late"] = {"type": "Transposed", "start": 9}
    run = launcher.start(plugin)
    assert run.wait() == 1
    assert "Traceback" in run.text and "in forward" in run.text and "size of tensor" in run.text
    assert not (launcher.root / "experiments").exists()


def test_a_failure_on_one_rank_ends_all_before_anything_is_written(launcher, options, images, tmp_path):
    """Rank 1 finds other files than rank 0, as on a machine where the data are not there."""
    options["datasets"]["train"] |= {"batch_size_per_gpu": 2}
    options["imports"] = [str(tmp_path / "local.py")]
    (tmp_path / "local.py").write_text(
        "import os\nfrom basicsr.data import paired_image_dataset as module\nread = module.image_pairs\n"
        "def find(*given):\n"
        "    *others, template = given\n"
        "    return read(*others, '{}x2' if os.environ.get('RANK') == '1' else template)\n"
        "module.image_pairs = find\n"
    )
    earlier = tmp_path / "experiments" / "tiny"
    earlier.mkdir(parents=True)
    (earlier / "earlier.log").write_text("an earlier run")
    runs = launcher.start_ranks(2, options)
    codes = [run.wait() for run in runs]
    assert codes == [1, 2], "\n".join(run.text[-2000:] for run in runs)
    assert "error (rank 1): datasets.train: " in runs[1].text
    assert "Set filename_tmpl to '{}'" in runs[1].text
    assert re.search(
        r"The run ends: rank 1 .* failed with ValueError: datasets\.train: .*It did not start", runs[0].text
    )
    assert tree(tmp_path / "experiments") == {"tiny": None, "tiny/earlier.log": b"an earlier run"}


def test_leftovers_of_a_killed_run_stay_until_it_goes_on(runner, options):
    folder = runner.train(options)
    leftover = folder / "models" / ".net_g_8.pth.123.tmp"
    leftover.touch()
    options["logger"]["keep_last"] = 1
    before = tree(folder)
    options["datasets"]["train"]["gt_size"] = 64
    options["path"] = {"resume_changed": ["datasets.train.gt_size"]}
    with pytest.raises(ValueError, match="smaller than a crop"):
        runner.train(options, "--auto_resume")
    assert tree(folder) == before
    options["datasets"]["train"]["gt_size"] = 16
    runner.train(options, "--auto_resume")
    assert not leftover.exists()
    assert [file.name for file in (folder / "training_states").iterdir()] == ["12.state"]


def test_pictures_that_do_not_belong_together(runner, options, images, tmp_path, capsys):
    """Of one size and one name, but not of one picture: it is said, and not refused."""
    names = [file.name for file in sorted((images / "hr").iterdir())]
    rng = torch.Generator().manual_seed(0)
    for name in names:
        lq = imread(str(images / "lr" / name))
        noise = torch.randint(0, 256, (8, 8, 3), generator=rng).numpy().astype("uint8")
        imwrite(imresize(noise, 8)[: lq.shape[0], : lq.shape[1]].repeat(1, 0), str(tmp_path / "data" / name))
    options["datasets"]["val"]["dataroot_lq"] = str(tmp_path / "data")
    assert main(["check", runner.write(options)]) == 0
    out = capsys.readouterr().out
    assert "note: datasets.val: the first LQ and GT images look like different pictures" in out
    assert "datasets.train" not in out


def test_a_network_of_another_factor_than_the_data(refused, options, tmp_path):
    """Of a network whose options do not tell its factor."""
    (tmp_path / "factor_plugin.py").write_text(
        "import torch\nfrom basicsr.utils.registry import ARCH_REGISTRY\n\n@ARCH_REGISTRY.register()\n"
        "class Fourfold(torch.nn.Conv2d):\n    def __init__(self):\n        super().__init__(3, 3, 1)\n\n"
        "    def forward(self, x):\n        return super().forward(x).repeat(1, 1, 4, 4)\n"
    )
    options |= {"imports": [str(tmp_path / "factor_plugin.py")], "network_g": {"type": "Fourfold"}}
    options.pop("network_t")
    options["train"].pop("kd_opt")
    refused(options, "shape")
    test = {key: options[key] for key in ("scale", "num_gpu", "manual_seed", "network_g", "imports")}
    test |= {"name": "tiny_test", "model_type": "SRModel", "val": {"metrics": options["val"]["metrics"]}, "path": {}}
    test["datasets"] = {"test_1": options["datasets"]["val"]}
    sentence = r"network_g makes 80×96, and the ground truth of datasets\.test_1 has 40×48; its upscale must be"
    refused(test, sentence, is_train=False)
