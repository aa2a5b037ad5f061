"""A key that a YAML file holds twice: the last value is taken, as by PyYAML, and the log says so."""

import logging

import pytest
import yaml

from basicsr.utils.options import load_options, read_options, yaml_load
from basicsr.utils.options.yaml_text import read_yaml

TEXTS = {
    "a value": ("a: 1\nb: 2\na: 3\n", ["a (x.yml:3): is written twice, first in line 1; the last one is taken"]),
    "inside": ("a:\n  b: 1\n  b: 2\n", ["a.b (x.yml:3): is written twice, first in line 2; the last one is taken"]),
    "thrice": (
        "a: 1\na: 2\na: 3\n",
        [f"a (x.yml:{n}): is written twice, first in line {n - 1}; the last one is taken" for n in (2, 3)],
    ),
    "in brackets": ("a: {b: 1, b: [2]}\n", ["a.b (x.yml:1): is written twice, first in line 1; the last one is taken"]),
    "sections": (
        "a: {b: 1, c: 2}\na: {d: 3}\n",
        ["a (x.yml:2): is written twice, first in line 1; the last one is taken"],
    ),
    "inherited": ("x: &x {a: 1}\ny: {<<: *x, a: 2}\n", []),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_last_value_is_taken_with_a_notice_of_both_lines(name):
    text, notices = TEXTS[name]
    data, marks = read_yaml(text, "x.yml")
    assert data == yaml.safe_load(text)
    assert marks.notices == notices


def test_the_marks_are_those_of_the_last_value():
    _, marks = read_yaml("a: {b: 1, c: 2}\na: {c: 3}\n", "x.yml")
    assert ("a", "b") not in marks
    assert marks["a", "c"] == "x.yml:2"


def test_bases_and_overrides_are_read_the_same_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yml").write_text("a: 1\na: 2\n")
    (tmp_path / "child.yml").write_text("_base_: base.yml\nb: 1\nb: 2\n")
    opt, marks = load_options("child.yml", ["c={d: 1, d: 2}"])
    assert opt == {"a": 2, "b": 2, "c": {"d": 2}}
    assert [notice.partition(":")[0] for notice in marks.notices] == [
        "a (base.yml",
        "b (child.yml",
        "d (--force_yml c",
    ]


def test_the_run_logs_it(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yml").write_text(
        "name: first\nname: second\nmodel_type: SRModel\nscale: 2\n"
        "network_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 2}\n"
        "datasets: {test: {name: a, type: SingleImageDataset, dataroot_lq: lq}}\n"
    )
    opt, notices = read_options("x.yml")
    assert opt["name"] == "second"
    assert "name (x.yml:2): is written twice, first in line 1; the last one is taken" in notices
    logging.getLogger("basicsr").addHandler(caplog.handler)
    try:
        assert yaml_load("x.yml")["name"] == "second"
    finally:
        logging.getLogger("basicsr").removeHandler(caplog.handler)
    assert "name (x.yml:2): is written twice" in caplog.text
