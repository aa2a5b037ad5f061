"""Clumsy and hostile option files: every mutation ends in an OptionError that names the option and the file.

Each shipped file is loaded once; what is wrong is put into the loaded options, or into the text. A mutated file goes
through the same `read_options` as a user's; that no data set is built, and no folder made, is checked through train.py
and test.py themselves.
"""

import copy
import json
import math
import os
import re
import sys
from pathlib import Path

import pytest

from basicsr.utils.options import read_options, reading, registered_section
from basicsr.utils.options.errors import OptionError, dotted
from basicsr.utils.options.files import load_options
from basicsr.utils.options.yaml_text import read_yaml_file

OPTIONS = Path(__file__).resolve().parents[2] / "options"
ALL_FILES = sorted(p for part in ("train", "test", "quickstart") for p in (OPTIONS / part).rglob("*.yml"))
FILES = [path for path in ALL_FILES if not any(p.startswith("_") for p in path.relative_to(OPTIONS).parts)]
REMOVED = object()
HUGE = 10**30


class Mutation:
    """One thing wrong with an option file.

    Args:
        name: Of the kind of mutation.
        key: The way to the option.
        value: What it is set to, or REMOVED.
        typo: What the key is misspelt as; its value stays.
        names: What the message must contain: the option's path, unless given.
    """

    def __init__(self, name, key, value=None, typo=None, names=None):
        self.name, self.key, self.value, self.typo = name, key, value, typo
        self.names = names or [dotted((*key[:-1], typo) if typo else key)]

    def apply(self, opt, marks):
        section = opt
        for part in self.key[:-1]:
            section = section[part]
        if self.typo:
            section[self.typo] = section.pop(self.key[-1])
            marks[(*self.key[:-1], self.typo)] = marks.where(self.key)
        elif self.value is REMOVED:
            del section[self.key[-1]]
        else:
            section[self.key[-1]] = self.value


def leaves(section, key=()):
    """All options of a section, the sections among them; a list counts as one option."""
    for name, value in section.items():
        yield (*key, name), value
        if isinstance(value, dict):
            yield from leaves(value, (*key, name))


KD_TERMS = ("train", "kd_opt")
NAMED_BY_THE_USER = [("datasets",), ("val", "metrics"), KD_TERMS]
MAY_BE_NEGATIVE = ("loss_weight", "res_scale", "img_range", "rgb_mean", "warmup_iter", "mlp_ratio", "weights")
MAY_BE_NONE = (
    *("pretrain_network_g", "pretrain_network_t", "resume_state", "suffix", "project", "resume_id", "wandb", "path"),
    *(
        "clip_grad_norm",
        "local_statistics",
        "restart_freq",
        "prefetch_mode",
        "io_backend",
        "manual_seed",
        "val",
        "metrics",
        "logits",
        "kd_opt",
        "pixel_opt",
        "window_size",
    ),
    *("gt_size", "batch_size_per_gpu", "num_worker_per_gpu", "upsampler", "scale", "val_freq", "imports", "noise_seed"),
)
REQUIRED = {
    *[("name",), ("model_type",), ("datasets",), ("network_g",), ("train",), ("logger",), ("network_g", "type")],
    *[("train", key) for key in ("optim_g", "scheduler", "total_iter")],
    *[("logger", "print_freq"), ("logger", "save_checkpoint_freq"), ("val", "val_freq")],
}
REQUIRED_ANYWHERE = (
    "type",
    "crop_border",
    "lr",
    "milestones",
    "T_max",
    "dataroot_gt",
    "dataroot_lq",
    "batch_size_per_gpu",
)


def misspelt(word):
    """The word with two neighbouring letters swapped."""
    at = next(i for i in range(len(word) - 2, -1, -1) if word[i] != word[i + 1])
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def mutations(opt):
    """All mutations of one file's options."""
    for key, value in leaves(opt):
        last = key[-1]
        if key[:-1] not in NAMED_BY_THE_USER or key[0] == "datasets":
            typo = misspelt(last)
            # a section without its type is told by what is missing, with the misspelt key
            named = [dotted(key[:-1]), f"'{typo}'"] if last in ("type", "model_type") else None
            yield Mutation("misspelt key", key, typo=typo, names=named)
        if key in REQUIRED or (last in REQUIRED_ANYWHERE and "network_t" not in key):
            yield Mutation("missing key", key, REMOVED, names=[dotted(key[:-1]) if key[1:] else "missing", last])
        if last not in MAY_BE_NONE and not last.startswith(("pretrain_", "param_key_")) and key[:-1] != KD_TERMS:
            yield Mutation("null", key, None, names=[dotted(key[:-1]) if key[1:] else last, last])
        yield from wrong_values(key, value)


def wrong_values(key, value):
    last = key[-1]
    if isinstance(value, dict):
        yield Mutation("list instead of section", key, [value])
        yield Mutation("word instead of section", key, "x")
        yield Mutation("number instead of section", key, 5)
    elif isinstance(value, bool):
        yield Mutation("string instead of truth", key, "yes please")
        yield Mutation("number instead of truth", key, 2)
    elif isinstance(value, (int, float)):
        for name, wrong in (("NaN", math.nan), ("infinite", math.inf), ("huge", HUGE)):
            yield Mutation(name, key, wrong)
        yield Mutation("string instead of number", key, str(value))
        yield Mutation("truth instead of number", key, True)
        yield Mutation("list instead of number", key, [[value]])
        yield Mutation("section instead of number", key, {"value": value})
        if isinstance(value, int) and last not in (
            "lr",
            "mlp_ratio",
            "res_scale",
            "loss_weight",
            "weight_decay",
            "sigma",
        ):
            yield Mutation("fraction", key, 2.5)
        if last not in MAY_BE_NEGATIVE:
            yield Mutation("negative", key, -7, names=of_torch(key))
    elif isinstance(value, str):
        if value != "auto":
            yield Mutation("number instead of string", key, 3)
        if last not in ("imports", "dataroot_gt", "dataroot_lq"):  # which may be lists
            yield Mutation("list instead of string", key, [value])
        if last in ("type", "model_type", "reduction", "resi_connection"):
            yield Mutation("unknown name", key, misspelt(value))
        if last in ("name", "filename_tmpl", "pretrain_network_g", "pretrain_network_t", "suffix"):
            yield Mutation("empty", key, "")
        if last == "name":
            yield Mutation("a path for a name", key, "../../elsewhere")
    elif isinstance(value, list):
        yield Mutation("word instead of list", key, "x")
        named = [dotted(key[:-1]), f"`{last}`"] if last == "layer_name_list" else None  # a network knows its layers
        yield Mutation("string in a list", key, ["x", *value[1:]], names=named)
        yield Mutation("NaN in a list", key, [math.nan, *value[1:]])
        yield Mutation("huge in a list", key, [HUGE, *value[1:]])
        if last not in MAY_BE_NEGATIVE:
            yield Mutation("negative in a list", key, [-7, *value[1:]], names=of_torch(key))
        if last in ("betas", "depths", "num_heads"):
            yield Mutation("list cut short", key, value[1:], names=[dotted(key[:-1])])


def of_torch(key):
    """PyTorch's optimisers declare no ranges: the message names the section, and the optimiser says what is wrong."""
    return [dotted(key[:-1]), "Invalid"] if "optim_g" in key and key[-1] != "lr" else None


SPECIFIC = [
    Mutation("batch of none", ("datasets", "train", "batch_size_per_gpu"), 0),
    Mutation("crop not a multiple", ("datasets", "train", "gt_size"), 97),
    Mutation("two placeholders", ("datasets", "val", "filename_tmpl"), "{}{}"),
    Mutation("open brace", ("datasets", "val", "filename_tmpl"), "{"),
    Mutation("no placeholder", ("datasets", "val", "filename_tmpl"), "x2"),
    Mutation("unknown backend", ("datasets", "val", "io_backend", "type"), "lmbd"),
    Mutation("unknown key of backend", ("datasets", "val", "io_backend"), {"type": "disk", "sped": 1}, names=["sped"]),
    Mutation("mean alone", ("datasets", "train", "mean"), [0.5], names=["datasets.train"]),
    Mutation("three channels for one", ("datasets", "train", "color"), "y", names=["network_g.num_in_ch", "have 1"]),
    Mutation("means of four channels", ("datasets", "train"), names=["datasets.train.mean", "1 or 3 values"],
             value={"name": "a", "type": "PairedImageDataset", "mean": [0.1] * 4, "std": [0.1] * 4}),
    Mutation("scale mismatch", ("network_g", "upscale"), 4),
    Mutation("scale mismatch", ("scale",), 3, names=["network_g.upscale", "scale is 3"]),
    Mutation("scale of zero", ("scale",), 0),
    Mutation("no network of that name", ("path", "pretrain_network_gg"), "x.pth"),
    Mutation("optimiser of no network", ("train", "optim_d"), {"type": "Adam", "lr": 0.1}),
    Mutation("unsupported factor", ("network_t", "upscale"), 5, names=["network_t", "by 5 is not supported"]),
    Mutation("no channels", ("network_g", "num_feat"), 0),
    Mutation("too many blocks", ("network_g", "num_block"), 10**7, names=["network_g", "not complete after"]),
    Mutation("channels do not agree", ("network_g", "num_out_ch"), 1, names=["network_g", "to 1 output channels"]),
    Mutation("unknown teacher", ("train", "kd_opt", "logits", "teacher"), "t_3"),
    Mutation("typo inside a term", ("train", "kd_opt", "logits", "criterium"), "l1"),
    Mutation("unknown criterion", ("train", "kd_opt", "logits", "criterion"), "l3"),
    Mutation("ends before it starts", ("train", "kd_opt", "logits", "end"), 0),
    Mutation("starts at a negative time", ("train", "kd_opt", "logits", "start"), -1),
    Mutation("unknown term", ("train", "kd_opt", "new"), {"type": "LogitKD"}, names=["kd_opt.new.type", "'LogitsKD'"]),
    Mutation("term without a type", ("train", "kd_opt", "new"), {"weight": 1}),
    Mutation("term with a dot", ("train", "kd_opt", "a.b"), {"type": "LogitsKD"}),
    Mutation("terms in a list", ("train", "kd_opt"), [{"type": "LogitsKD"}]),
    Mutation("pair with a typo", ("train", "kd_opt", "f"), names=["kd_opt.f.pairs.0.techer", "'teacher'"],
             value={"type": "FitNets", "pairs": [{"student": "a", "techer": "b"}]}),
    Mutation("pairs of another network", ("train", "kd_opt", "f"),
             {"type": "FitNets", "pairs": [{"student": "a", "teacher": "b", "network": "x"}]}, names=["f.pairs.0"]),
    Mutation("beta above one", ("train", "optim_g", "betas"), [0.9, 1.5], names=["train.optim_g", "beta"]),
    Mutation("unknown optimiser", ("train", "optim_g", "type"), "Adm"),
    Mutation("no period", ("train", "scheduler", "T_max"), 0, names=["train.scheduler", "periods must be positive"]),
    Mutation("restarts do not fit", ("train", "scheduler"), names=["train.scheduler"],
             value={"type": "CosineAnnealingRestartLR", "periods": [5, 5], "restart_weights": [1]}),
    Mutation("decay of one", ("train", "ema_decay"), 1.0),
    Mutation("clip at nothing", ("train", "clip_grad_norm"), 0),
    Mutation("typo in a metric", ("val", "metrics", "psnr", "test_y_chanel"), True),
    Mutation("metric without a name", ("val", "metrics"), [{"type": "calculate_psnr"}]),
    Mutation("which way is better", ("val", "metrics", "psnr", "better"), "up"),
    Mutation("typo in wandb", ("logger", "wandb"), {"projct": "x"}, names=["logger.wandb.projct"]),
    Mutation("runtime of no network", ("runtime",), {"z": {}}, names=["runtime.z"]),
    Mutation("typo in runtime", ("runtime",), {"t": {"precison": "bf16"}}, names=["runtime.t.precison"]),
    Mutation("unknown precision", ("runtime",), {"t": {"precision": "int4"}}, names=["runtime.t.precision"]),
    Mutation("port of none", ("dist_params",), {"port": 70_000}, names=["dist_params.port"]),
    Mutation("unknown backend of ranks", ("dist_params",), {"backend": "mpi"}, names=["dist_params.backend"]),
    Mutation("test set in training", ("datasets", "test_1"), {"type": "PairedImageDataset"}),
    Mutation("two sets of one name", ("datasets", "val_9"), names=["datasets.val_9.name"],
             value={"name": "quickstart_test", "type": "PairedImageDataset", "dataroot_gt": "a", "dataroot_lq": "a"}),
    Mutation("null data set", ("datasets", "val"), None),
    Mutation("number as a key", (3,), 4, names=["3"]),
    Mutation("non-ASCII key", ("schlüssel",), 1),
    Mutation("seed beyond 32 bits", ("manual_seed",), 2**32),
    Mutation("GPU count", ("num_gpu",), "all"),
]  # fmt: skip


@pytest.fixture(scope="module")
def loaded():
    """Each complete shipped file, loaded once."""
    return {path: load_options(path) for path in FILES}


@pytest.fixture(autouse=True)
def each_network_is_tried_once(monkeypatch, trials):
    """The same network is met in many mutations; its trial is remembered."""
    attempt = registered_section.failure

    def remembered(kind, target, section):
        key = (kind, target, json.dumps(section, default=str))
        if key not in trials:
            trials[key] = attempt(kind, target, section)
        return trials[key]

    monkeypatch.setattr(registered_section, "failure", remembered)


@pytest.fixture(scope="module")
def trials():
    return {}


def outcome(monkeypatch, loaded, path, mutation):
    """What `read_options` says of a mutated file: the error's text; '' when it passes."""
    opt, marks = copy.deepcopy(loaded[path][0]), copy.copy(loaded[path][1])
    mutation.apply(opt, marks)
    monkeypatch.setattr(reading, "load_options", lambda *_: (opt, marks))
    try:
        read_options(path, is_train=path.stem.startswith("train"))
    except OptionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_mutation_of_a_shipped_file_is_told(monkeypatch, loaded, path, request):
    """All of them for the first file with such an option; an option met before, in the same setting, is passed over."""
    seen = request.config.__dict__.setdefault("_mutated", set())
    opt = loaded[path][0]
    setting = (path.stem.startswith("train"), opt["model_type"], opt["network_g"]["type"])
    silent, tried = [], 0
    for mutation in mutations(opt):
        identity = (mutation.name, mutation.key, setting[:2] if mutation.key[0][:7] != "network" else setting)
        if identity in seen and tried >= 8:
            continue
        seen.add(identity)
        tried += 1
        text = outcome(monkeypatch, loaded, path, mutation)
        wanted = [*mutation.names, ".yml"]
        if not all(word in text for word in wanted):
            silent.append(f"{mutation.name} of {dotted(mutation.key)}: {text or 'PASSED'}")
    assert silent == []
    assert tried >= 8


@pytest.mark.parametrize("mutation", SPECIFIC, ids=lambda m: f"{m.name}: {dotted(m.key)}"[:60])
def test_specific_mistakes_are_told(monkeypatch, loaded, mutation):
    path = OPTIONS / "quickstart" / "train_distilled.yml"
    text = outcome(monkeypatch, loaded, path, mutation)
    assert all(word in text for word in [*mutation.names, ".yml"]), text


def test_there_are_many(loaded):
    kinds = {(m.name, m.key) for path in FILES for m in mutations(loaded[path][0])}
    assert len(kinds) + len(SPECIFIC) >= 1000
    assert len({name for name, _ in kinds} | {m.name for m in SPECIFIC}) >= 60


# What is wrong with the text of a file, shipped bases included.

TEXTS = {
    "a tab": (lambda text: text + "\nextra:\n\t- 1\n", "not valid YAML"),
    "an open bracket": (lambda text: text + "\nextra: [1, 2\n", "not valid YAML"),
    "an anchor that is not there": (lambda text: text + "\nextra: *nowhere\n", "undefined alias"),
    "an alias of itself": (lambda text: text + "\nextra: &a [*a]\n", "contains itself"),
    "an alias bomb": (
        lambda text: text
        + "\nb0: &b0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 9)),
        "more than 20,000 values",
    ),
    "a Python object": (lambda text: text + "\nextra: !!python/object/apply:os.getcwd []\n", "not allowed"),
    "a second document": (lambda text: text + "\n---\nname: b\n", "another document"),
    "deep nesting": (lambda text: text + "\nextra: " + "[" * 1500 + "\n", "nested too deeply"),
    "a huge number": (lambda text: text + "\nextra: " + "9" * 5000 + "\n", "digits"),
    "a zero byte": (lambda text: text + "\nextra: \0\n", "not valid YAML"),
    "a list": (lambda text: "- a\n- b\n", "an option file must hold `key: value` lines"),
    "a word": (lambda text: "hello\n", "an option file must hold `key: value` lines"),
    "nothing": (lambda text: "", "it is empty"),
    "comments alone": (lambda text: "# nothing\n", "it is empty"),
    "a base of itself": (lambda text: "_base_: mutated.yml\n", "goes round in a circle"),
    "a base that is absent": (lambda text: "_base_: absent.yml\n", "there is no file 'absent.yml'"),
    "a base that is a folder": (lambda text: "_base_: .\n", "there is no file '.'"),
    "a base that is a number": (lambda text: "_base_: 3\n", "_base_"),
    "an import that is absent": (lambda text: "imports: [no_such_module_here]\n", "could not be imported"),
    "an import that is a number": (lambda text: "imports: 7\n", "imports"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_damaged_text_is_told(tmp_path, name):
    mutate, sentence = TEXTS[name]
    file = tmp_path / "mutated.yml"
    file.write_text(mutate((OPTIONS / "train/_base_/div2k_x2.yml").read_text()))
    with pytest.raises(OptionError, match="mutated.yml") as caught:
        read_options(file)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda p: p.relative_to(OPTIONS).as_posix())
def test_every_shipped_text_is_read_with_care(tmp_path, path):
    """Each file, bases included, with its last key written once more."""
    lines = [line for line in path.read_text().splitlines() if line[:1].isalpha()]
    file = tmp_path / "mutated.yml"
    repeated = lines[-1].partition(":")[0]
    file.write_text(path.read_text() + f"\n{repeated}: 1\n")
    data, marks = read_yaml_file(file)
    assert data[repeated] == 1
    (notice,) = marks.notices
    assert re.search(rf"^{repeated} \(.*mutated\.yml:\d+\): is written twice, first in line \d+; the last", notice)


def test_what_is_no_text_file_is_told(tmp_path):
    (tmp_path / "latin.yml").write_bytes("name: caf\xe9\n".encode("latin-1"))
    (tmp_path / "binary.yml").write_bytes(os.urandom(256) + b"\xff\xfe")
    (tmp_path / "folder.yml").mkdir()
    for name in ("latin", "binary", "folder", "absent"):
        with pytest.raises(OptionError, match=f"{name}.yml"):
            read_options(tmp_path / f"{name}.yml")


@pytest.mark.parametrize(
    ("force", "sentence"),
    [
        ("train", "expected `section:key=value`"),
        ("=1", "expected `section:key=value`"),
        ("train::lr=1", "expected `section:key=value`"),
        ("name:x=1", "name is not a section"),
        ("train:total_iter=[", "--force_yml train:total_iter:1: not valid YAML"),
        ("train:total_iter=", "train.total_iter (--force_yml): must be an integer"),
        ("train:totl_iter=5", "train.totl_iter (--force_yml): unknown key; did you mean 'total_iter'?"),
        ("datasets=1", "datasets (--force_yml): must be a section, not 1"),
        ("imports=[1]", "imports (--force_yml): must be a list of module names"),
        ("imports={a: 1}", "imports (--force_yml): must be a list of module names"),
        ("imports=no_such_module_here", "'no_such_module_here' could not be imported"),
        ("_base_=x.yml", "_base_ (--force_yml): unknown key"),
        ("scale=!!python/name:os.system", "--force_yml scale"),
        ("scale=*a", "--force_yml scale:1: not valid YAML"),
        ('name="a\\nb"', "name (--force_yml): must serve as the name of a folder"),
        ("name=''", "name (--force_yml): must serve as the name of a folder"),
        ("=", "expected `section:key=value`"),
    ],
)
def test_odd_overrides_are_told(force, sentence):
    with pytest.raises(OptionError) as caught:
        read_options(OPTIONS / "quickstart" / "train_distilled.yml", [force], is_train=True)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("def broken(:\n", r"SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 .*plug_in\.py:2"),
        ("1 / 0\n", r"ZeroDivisionError.*plug_in\.py:1"),
        ("from basicsr.utils.registry import NOTHING\n", r"ImportError.*plug_in\.py:1"),
        ("\0", r"SyntaxError.*null bytes"),
    ],
)
def test_plug_ins_that_break_are_told(tmp_path, monkeypatch, content, sentence):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "plug_in", raising=False)
    (tmp_path / "plug_in.py").write_text(content)
    (tmp_path / "x.yml").write_text("imports: [plug_in.py]\nname: x\n")
    with pytest.raises(
        OptionError, match=r"imports \(.*x\.yml:1\): .*plug_in\.py' could not be imported: .*" + sentence
    ):
        read_options(tmp_path / "x.yml")


# Nothing is touched before the options are right.


@pytest.fixture
def entry(monkeypatch, tmp_path):
    """Runs train.py's or test.py's pipeline where building a data set or a network ends the test."""

    def explode(*_args, **_kwargs):
        pytest.fail("something was built although the options are wrong")

    def run(module, *arguments):
        monkeypatch.setattr(module, "RunLock", explode)
        for name in ("build_dataset", "build_model", "build_streams"):
            monkeypatch.setattr(f"basicsr.start.{name}", explode)
        monkeypatch.setattr(sys, "argv", ["x.py", "-opt", *map(str, arguments)])
        pipeline = module.train_pipeline if hasattr(module, "train_pipeline") else module.test_pipeline
        with pytest.raises(OptionError) as caught:
            pipeline(str(tmp_path))
        assert not list(tmp_path.glob("*/"))
        return str(caught.value)

    return run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_missing_data_and_weights_are_told_at_once(monkeypatch, entry, path, loaded, tmp_path):
    """A fresh checkout has neither: every path of the file is named, in one message, before anything is made."""
    import basicsr.test
    import basicsr.train

    is_train = path.stem.startswith("train")
    monkeypatch.setattr(reading, "load_options", lambda *_: copy.deepcopy(loaded[path]))
    monkeypatch.chdir(tmp_path)
    text = entry(basicsr.train if is_train else basicsr.test, path)
    opt, marks = loaded[path]
    expected = [
        ("datasets", name, key) for name, section in opt["datasets"].items() for key in section if "dataroot" in key
    ]
    expected += [("path", key) for key, value in opt["path"].items() if key.startswith("pretrain") and value]
    for key in expected:
        assert f"{marks.label(key)}: " in text
    assert text.count("does not exist") == len(expected)


@pytest.mark.parametrize(
    "change", ["train:total_iter=many", "network_g:num_feat=-3", "datasets:train:gt_size=-4", "nmae=x"]
)
def test_train_py_builds_nothing_from_wrong_options(entry, change):
    import basicsr.train

    text = entry(basicsr.train, OPTIONS / "quickstart" / "train_student.yml", "--force_yml", change)
    assert change.partition("=")[0].replace(":", ".") in text


def test_a_training_file_is_not_tested(entry):
    import basicsr.test

    text = entry(basicsr.test, OPTIONS / "quickstart" / "train_student.yml")
    assert "datasets.train" in text and "a training set is not tested on" in text


def test_wrong_places_are_told(loaded, tmp_path, monkeypatch):
    """A file for a folder, a folder for a file, a database that is none."""
    (tmp_path / "file").touch()
    (tmp_path / "x.lmdb").mkdir()
    path = OPTIONS / "quickstart" / "train_distilled.yml"
    cases = {
        "datasets:train:dataroot_gt=file": "datasets.train.dataroot_gt (--force_yml): file is not a folder",
        "path:pretrain_network_t=.": "path.pretrain_network_t (--force_yml): . is not a file",
        "path:resume_state=x.lmdb": "path.resume_state (--force_yml): x.lmdb is not a file",
        "datasets:val:meta_info_file=x.lmdb": "datasets.val.meta_info_file (--force_yml): x.lmdb is not a file",
        "datasets:val:dataroot_lq=": "datasets.val.dataroot_lq (--force_yml)",
        "datasets:val:dataroot_lq=''": "datasets.val.dataroot_lq (--force_yml): is empty",
        'datasets:val:dataroot_lq="a\\0b"': "datasets.val.dataroot_lq (--force_yml)",
    }
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError) as caught:
        for force, sentence in cases.items():
            try:
                read_options(path, [force], is_train=True, check_files=True)
            except OptionError as error:
                assert sentence in str(error)
        read_options(
            path,
            ["datasets:val:io_backend:type=lmdb", "datasets:val:dataroot_lq=x.lmdb", "datasets:val:dataroot_gt=."],
            is_train=True,
            check_files=True,
        )
    assert "x.lmdb is not an LMDB made by create_lmdb.py: it lacks data.mdb and meta_info.txt" in str(caught.value)
    assert ".: the folder of an LMDB ends in .lmdb" in str(caught.value)


def test_valid_files_stay_valid(loaded, monkeypatch):
    """The mutations above are told for what they are, not because the files are wrong anyway."""
    for path in FILES:
        nothing = Mutation("none", ("name",), loaded[path][0]["name"])
        assert outcome(monkeypatch, loaded, path, nothing) == ""
