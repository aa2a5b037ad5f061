import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import basicsr
from basicsr.engine.evaluate.evaluator import DatasetResult
from basicsr.engine.evaluate.report import markdown_table, run_facts, write_report


@pytest.fixture
def results():
    return [
        DatasetResult("Set5", ["a", "b"], {"psnr": [30.0, 32.0], "ssim": [0.8, 0.9]}),
        DatasetResult("Set14", ["c, d"], {"psnr": [28.5]}),
    ]


FACTS = {"name": "run", "weights": "x.pth", "weights_sha256": "12ab", "options": {"scale": 2, "val": {"tile": "auto"}}}


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_json_has_every_image(tmp_path, results):
    write_report(tmp_path / "new", "results", results, FACTS)
    data = json.loads((tmp_path / "new" / "results.json").read_text())
    assert {key: data[key] for key in FACTS} == FACTS
    assert data["datasets"]["Set5"]["mean"] == {"psnr": 31.0, "ssim": pytest.approx(0.85)}
    assert data["datasets"]["Set5"]["images"]["b"] == {"psnr": 32.0, "ssim": 0.9}


def test_csv_has_every_image_and_what_it_was_made_from(tmp_path, results):
    write_report(tmp_path, "results", results, FACTS)
    made_from = {"name": "run", "weights": "x.pth", "weights_sha256": "12ab"}
    assert rows(tmp_path / "results.csv") == [
        {"dataset": "Set5", "image": "a", "psnr": "30.0", "ssim": "0.8", **made_from},
        {"dataset": "Set5", "image": "b", "psnr": "32.0", "ssim": "0.9", **made_from},
        {"dataset": "Set14", "image": "c, d", "psnr": "28.5", "ssim": "", **made_from},
    ]


def test_markdown_has_the_means_and_the_options(tmp_path, results):
    write_report(tmp_path, "results", results, FACTS)
    text = (tmp_path / "results.md").read_text()
    assert "| Set5 | 2 | 31.0000 | 0.8500 |" in text
    assert "| Set14 | 1 | 28.5000 | – |" in text
    assert "- weights: x.pth" in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == FACTS["options"]


def test_numbers_that_json_does_not_know(tmp_path):
    result = DatasetResult("s", ["a", "b", "b"], {"m": [math.nan, math.inf, 1.0]})
    write_report(tmp_path, "r", [result], {"options": {"x": math.inf, "path": Path("p"), "t": (1, None)}})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    images = {"a": {"m": None}, "b": {"m": "inf"}, "b#2": {"m": 1.0}}
    assert data["datasets"]["s"] == {"mean": {"m": "inf"}, "images": images}
    assert data["options"] == {"x": "inf", "path": "p", "t": [1, None]}
    assert [(row["image"], row["m"]) for row in rows(tmp_path / "r.csv")] == [("a", ""), ("b", "inf"), ("b#2", "1.0")]


def test_table_is_a_table(results):
    assert len({line.count("|") for line in markdown_table(results).splitlines()}) == 1


def test_facts_of_a_test(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"abc")
    opt = {"name": "n", "path": {"pretrain_network_g": str(tmp_path / "w.pth")}}
    facts = run_facts(opt)
    assert list(facts) == ["name", "weights", "weights_sha256", "environment", "options"]
    assert facts["weights_sha256"].startswith("ba7816bf")
    assert facts["options"] == opt
    for version in (basicsr.__version__, torch.__version__, np.__version__, cv2.__version__):
        assert version in facts["environment"]


def test_facts_of_a_validation_name_the_weights_only_where_they_are_saved(tmp_path):
    opt = {"name": "n", "path": {"pretrain_network_g": "start.pth", "models": str(tmp_path)}}
    (tmp_path / "net_g_8.pth").write_bytes(b"abc")
    assert run_facts(opt, 8)["weights"] == str(tmp_path / "net_g_8.pth")
    assert run_facts(opt, 8)["weights_sha256"].startswith("ba7816bf")
    assert "weights" not in run_facts(opt, 9)
    assert run_facts(opt, 9)["iteration"] == 9
