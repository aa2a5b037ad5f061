import json

import pytest

from basicsr.engine.evaluator import DatasetResult
from basicsr.engine.report import file_hash, markdown_table, write_report


@pytest.fixture
def results():
    return [
        DatasetResult("Set5", ["a", "b"], {"psnr": [30.0, 32.0], "ssim": [0.8, 0.9]}),
        DatasetResult("Set14", ["c"], {"psnr": [28.5]}),
    ]


def test_report(tmp_path, results):
    write_report(tmp_path / "new", "results", results, {"weights": "x.pth"})
    data = json.loads((tmp_path / "new" / "results.json").read_text())
    assert data["weights"] == "x.pth"
    assert data["datasets"]["Set5"]["mean"] == {"psnr": 31.0, "ssim": pytest.approx(0.85)}
    assert data["datasets"]["Set5"]["images"]["b"] == {"psnr": 32.0, "ssim": 0.9}
    text = (tmp_path / "new" / "results.md").read_text()
    assert "| Set5 | 2 | 31.0000 | 0.8500 |" in text
    assert "| Set14 | 1 | 28.5000 | – |" in text
    assert "- weights: x.pth" in text


def test_table_is_a_table(results):
    assert len({line.count("|") for line in markdown_table(results).splitlines()}) == 1


def test_file_hash(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_hash(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
