import sys

import pytest

from basicsr.utils.options.errors import Marks, OptionError
from basicsr.utils.options.files import import_modules, load_options
from basicsr.utils.registry import LOSS_REGISTRY


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)


def test_a_derived_file_wins_key_by_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path,
        one="scale: 2\ntrain:\n  a: 1\n  optim_g: {type: Adam, lr: 1e-4}\n  list: [1, 2]\n",
        two="scale: 3\nval: {x: 1}\n",
        child="_base_: [one.yml, two.yml]\ntrain:\n  optim_g:\n    lr: 2e-4\n  list: [3]\n",
    )
    opt, marks = load_options("child.yml")
    assert opt == {
        "scale": 3,
        "train": {"a": 1, "optim_g": {"type": "Adam", "lr": 2e-4}, "list": [3]},
        "val": {"x": 1},
    }
    assert marks["scale",] == "two.yml:1"
    assert marks["train", "a"] == "one.yml:3"
    assert marks["train", "optim_g", "type"] == "one.yml:4"
    assert marks["train", "optim_g", "lr"] == "child.yml:4"
    assert marks["train", "list", 0] == "child.yml:5"
    assert ("train", "list", 1) not in marks


def test_bases_are_found_beside_the_file_that_names_them(tmp_path):
    (tmp_path / "sub" / "_base_").mkdir(parents=True)
    write(tmp_path / "sub" / "_base_", deep="a: 1\n")
    write(tmp_path / "sub", middle="_base_: _base_/deep.yml\nb: 2\n")
    write(tmp_path, top="_base_: sub/middle.yml\nc: 3\n")
    assert load_options(tmp_path / "top.yml")[0] == {"a": 1, "b": 2, "c": 3}


def test_sections_are_removed_by_null_and_replaced_on_request(tmp_path):
    write(
        tmp_path,
        base="kd: {x: {type: A}, y: {type: B}}\nsched: {type: S, gamma: 1}\npath: {p: q}\n",
        child="_base_: base.yml\nkd: {x: ~}\nsched: {_delete_: true, type: T}\npath: {p: ~}\nn: {_delete_: true, a: 1}",
    )
    assert load_options(tmp_path / "child.yml")[0] == {
        "kd": {"y": {"type": "B"}},
        "sched": {"type": "T"},
        "path": {"p": None},
        "n": {"a": 1},
    }


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"x": "_base_: x.yml\n"}, r"circle: x.yml → x.yml"),
        ({"x": "_base_: y.yml\n", "y": "_base_: [z.yml]\n", "z": "_base_: x.yml\n"}, r"x.yml → y.yml → z.yml → x.yml"),
        ({"x": "a: 1\n_base_: none.yml\n"}, r"_base_ \(x.yml:2\): there is no file 'none.yml' beside x.yml"),
        ({"x": "_base_: 3\n"}, r"_base_ \(x.yml:1\): must be the path"),
        ({"x": "_base_: [3]\n"}, r"_base_ \(x.yml:1\): must be the path"),
        ({"x": ""}, r"must hold `key: value` lines, but it is empty"),
        ({"x": "- 1\n"}, r"x.yml:1: .* but it holds a list"),
        ({"x": "imports: 3\n"}, r"imports \(x.yml:1\): must be a list"),
        ({"x": "imports: [mine.py]\n"}, r"imports \(x.yml:1\): there is no file 'mine.py'"),
    ],
)
def test_bad_files_are_told(tmp_path, monkeypatch, files, sentence):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, **files)
    with pytest.raises(OptionError, match=sentence):
        load_options("x.yml")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("train:lr=1e-4", {"train": {"lr": 1e-4, "s": {"k": 1}}}),
        ("train:s:k=[1, 2]", {"train": {"lr": 1, "s": {"k": [1, 2]}}}),
        ("a:b:c=x=y", {"train": {"lr": 1, "s": {"k": 1}}, "a": {"b": {"c": "x=y"}}}),
        ("train:lr=~", {"train": {"lr": None, "s": {"k": 1}}}),
        ("train:s=~", {"train": {"lr": 1}}),
        ("train:s={type: A}", {"train": {"lr": 1, "s": {"type": "A"}}}),
        ("name=", {"train": {"lr": 1, "s": {"k": 1}}, "name": None}),
        ("on=true", {"train": {"lr": 1, "s": {"k": 1}}, "on": True}),
    ],
)
def test_force_yml(tmp_path, entry, expected):
    write(tmp_path, x="train: {lr: 1, s: {k: 1}}\n")
    opt, marks = load_options(tmp_path / "x.yml", [entry])
    assert opt == expected
    assert marks.where(tuple(entry.partition("=")[0].split(":"))) == "--force_yml"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("train:lr", "expected `section:key=value`"),
        ("=3", "expected `section:key=value`"),
        ("train::lr=3", "expected `section:key=value`"),
        ("train:lr:x=3", "train.lr is not a section, but 1"),
        ("train:lr=[1", "--force_yml train:lr:1: not valid YAML"),
        ("train:lr=__import__('os')\n: {", "not valid YAML"),
    ],
)
def test_bad_force_yml(tmp_path, entry, sentence):
    write(tmp_path, x="train: {lr: 1}\n")
    with pytest.raises(OptionError, match=sentence.replace("(", r"\(")):
        load_options(tmp_path / "x.yml", [entry])


def test_force_yml_runs_no_code(tmp_path):
    write(tmp_path, x="a: 1\n")
    opt, _ = load_options(tmp_path / "x.yml", ["a=__import__('os').getcwd()"])
    assert opt["a"] == "__import__('os').getcwd()"


@pytest.fixture
def clean_imports(monkeypatch):
    """Undo what importing users' modules leaves behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(LOSS_REGISTRY, "_objects", dict(iter(LOSS_REGISTRY)))
    yield
    for name in ("beside_loss_a", "here_loss_b", "module_loss_c", "breaks_badly"):
        sys.modules.pop(name, None)


def test_imports_register_users_classes(tmp_path, monkeypatch, clean_imports):
    source = "from basicsr.utils.registry import LOSS_REGISTRY\n@LOSS_REGISTRY.register()\nclass {}: pass\n"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "beside_loss_a.py").write_text(source.format("BesideLossA"))
    (tmp_path / "lib" / "x.yml").write_text("imports: [beside_loss_a.py]\n")
    (tmp_path / "here_loss_b.py").write_text(source.format("HereLossB"))
    (tmp_path / "module_loss_c.py").write_text(source.format("ModuleLossC"))
    write(tmp_path, y="_base_: lib/x.yml\nimports: [here_loss_b.py, module_loss_c, beside_loss_a.py]\n")
    (tmp_path / "beside_loss_a.py").symlink_to(tmp_path / "lib" / "beside_loss_a.py")
    monkeypatch.chdir(tmp_path)
    opt, marks = load_options("y.yml")
    assert len(opt["imports"]) == 3
    import_modules(opt, marks)
    for name in ("BesideLossA", "HereLossB", "ModuleLossC"):
        assert LOSS_REGISTRY.get(name).__name__ == name


def test_failing_imports_say_which_and_why(tmp_path, monkeypatch, clean_imports):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaks_badly.py").write_text("x = 1\nraise RuntimeError('no luck')\n")
    write(tmp_path, x="imports:\n  - breaks_badly.py\n", y="imports: no_such_module_at_all\n", z="imports: [json.py]\n")
    with pytest.raises(OptionError, match=r"imports \(x.yml:1\).*RuntimeError: no luck \(.*breaks_badly.py:2\)"):
        import_modules(*load_options("x.yml"))
    with pytest.raises(OptionError, match=r"imports \(y.yml:1\): 'no_such_module_at_all' .*ModuleNotFoundError"):
        import_modules(*load_options("y.yml"))
    (tmp_path / "json.py").write_text("")
    with pytest.raises(OptionError, match=r"another module is named 'json'.*Rename the file"):
        import_modules(*load_options("z.yml"))
    import_modules({}, Marks())
