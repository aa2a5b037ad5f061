import math

import pytest
import yaml

from basicsr.utils.options.errors import OptionError
from basicsr.utils.options.yaml_text import dump_yaml, read_yaml, read_yaml_file


def load(text):
    return read_yaml(text, "x.yml")[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("!!float 1e-4", 0.0001),
        ("!!float 5e3", 5000.0),
        ("!!float 3", 3.0),
        ("2E+3", 2000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e-3", -0.0015),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("1", 1),
        ("-1", -1),
        ("0", 0),
        ("0x1F", 31),
        ("1_000", 1000),
        ("10" * 40, int("10" * 40)),
        ("'1'", "1"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("-", [None]),
        ("~", None),
        ("true", True),
        ("y", "y"),
    ],
)
def test_scalars(text, value):
    found = load(text)
    assert found == value
    assert type(found) is type(value)


def test_nan():
    assert math.isnan(load(".nan"))


def test_every_value_knows_its_line():
    text = "a: 1\nb:\n  c: 2\n  d:\n    - {e: 3}\n    - 4\n"
    data, marks = read_yaml(text, "x.yml")
    assert data == {"a": 1, "b": {"c": 2, "d": [{"e": 3}, 4]}}
    assert marks["a",] == "x.yml:1"
    assert marks["b",] == "x.yml:2"
    assert marks["b", "c"] == "x.yml:3"
    assert marks["b", "d", 0, "e"] == "x.yml:5"
    assert marks["b", "d", 1] == "x.yml:6"
    assert marks.where(("b", "c", "unknown")) == "x.yml:3"
    assert marks.label(("b", "c")) == "b.c (x.yml:3)"


def test_merge_keys_inherit_and_lose_to_written_ones():
    data, marks = read_yaml("base: &b {p: 1, q: 2}\nuse:\n  q: 3\n  <<: *b\nlist: {<<: [{p: 7}, *b]}\n", "x.yml")
    assert data["use"] == {"q": 3, "p": 1}
    assert data["list"] == {"p": 7, "q": 2}
    assert marks["use", "q"] == "x.yml:3"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1, 2\nb: 3\n", r"x.yml:2: not valid YAML"),
        ("a:\n\t- 1\n", r"x.yml:2: not valid YAML: .*\\t"),
        ("a: *nothing\n", r"x.yml:1: not valid YAML: .*undefined alias"),
        ("a: !!float abc\n", r"x.yml:1: could not convert"),
        ("a: !!python/object/apply:os.system ['true']\n", r"x.yml:1: the tag .*os.system is not allowed"),
        ("a: !!python/name:os.system ''\n", r"x.yml:1: not valid YAML: .*python/name"),
        ("a: !!set {b, c}\n", r"x.yml:1: the tag .*set is not allowed"),
        ("? [1, 2]\n: 3\n", r"x.yml:1: a key must be a plain word"),
        ("a: {<<: 3}\n", r"x.yml:1: `<<:` takes a section"),
        ("a: &a [*a]\n", r"x.yml:1: an alias that contains itself"),
        ("a: 1\n---\nb: 2\n", r"x.yml:2: not valid YAML: .*another document"),
        ("a: \x00", r"x.yml: not valid YAML"),
        ("a: " + "9" * 5000, r"x.yml:1: .*digits"),
        ("[" * 3000, r"x.yml: nested too deeply"),
    ],
)
def test_bad_yaml_says_where_and_why(text, sentence):
    with pytest.raises(OptionError, match=sentence):
        load(text)


def test_aliases_cannot_expand_without_bound():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    with pytest.raises(OptionError, match=r"x.yml:\d+: more than 20,000 values"):
        load(bomb)
    merging = "a0: &a0 {k: 1}\n" + "".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 10)
    )
    with pytest.raises(OptionError, match=r"x.yml:\d+: more than 20,000 values"):
        load(merging)


def test_unreadable_files_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"^none.yml: there is no such option file"):
        read_yaml_file("none.yml")
    (tmp_path / "latin.yml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(OptionError, match=r"^latin.yml: not a UTF-8 text file"):
        read_yaml_file("latin.yml")
    with pytest.raises(OptionError, match=r"cannot be read"):
        read_yaml_file(tmp_path)
    (tmp_path / "bom.yml").write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml_file("bom.yml")[0] == {"name": "x"}


def test_dumped_yaml_reads_back_here_and_elsewhere():
    data = {
        "f": [1e-4, 1e-7, 5000.0, math.inf, 1.0, 0.1 + 0.2],
        "s": ["1e-4", "12", "~", "true", "", "1:30", "2024-01-01", "ü", "a: b", "y", "#x", " x "],
        "n": None,
        "b": {"t": True, "i": [1, -2]},
    }
    text = dump_yaml(data)
    assert load(text) == data
    assert yaml.safe_load(text) == data
