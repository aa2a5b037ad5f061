import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from basicsr.cli import main
from basicsr.commands.doctor import EXTRAS
from basicsr.utils.registry import ARCH_REGISTRY

ROOT = Path(__file__).resolve().parents[2]


def test_list_shows_names_with_their_files(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^arch:\n", out)
    assert re.search(r"^  SwinIR +basicsr/archs/swinir_arch.py ", out, re.MULTILINE)
    assert re.search(r"^  LogitsKD +basicsr/distill/logits.py ", out, re.MULTILINE)
    assert ":class:" not in out


def test_list_of_one_kind(capsys):
    assert main(["list", "loss"]) == 0
    out = capsys.readouterr().out
    assert "L1Loss" in out
    assert "SwinIR" not in out
    assert main(["list", "losses"]) == 1
    assert "there is no kind 'losses'" in capsys.readouterr().err


def test_list_with_a_module_that_fails(capsys):
    assert main(["list", "--imports", "no_such_module_here"]) == 1
    assert "no_such_module_here" in capsys.readouterr().err


def test_schema_describes_every_registered_class(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)

    def find(reference):
        return schema["$defs"][reference["$ref"].rpartition("/")[2]]

    networks = {n["title"]: n for n in map(find, schema["$defs"]["NetworkOptions"]["anyOf"])}
    assert networks.keys() == set(ARCH_REGISTRY.keys())
    assert networks["EDSR"]["properties"]["num_feat"] == {"default": 64, "exclusiveMinimum": 0, "type": "integer"}
    assert networks["EDSR"]["additionalProperties"] is False
    rules = {r["if"]["properties"]["model_type"]["const"]: r["then"] for r in schema["allOf"]}
    trains = {name: find(rule["properties"]["train"]) for name, rule in rules.items()}
    assert "pixel_opt" in trains["SRModel"]["properties"]
    assert "kd_opt" in trains["KDModel"]["properties"]
    assert trains["SRModel"]["patternProperties"]["^optim_\\w+$"] == {"$ref": "#/$defs/OptimizerOptions"}
    datasets = [find(d) for d in schema["$defs"]["DatasetOptions"]["anyOf"]]
    assert any("gt_size" in d.get("properties", {}) for d in datasets)
    assert schema["properties"]["name"]["description"]
    assert trains["SRModel"]["properties"]["total_iter"]["minimum"] == 1
    for reference in re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)):
        assert reference in schema["$defs"]


def test_check(tmp_path, capsys):
    good = ROOT / "options/test/IMDN/test_IMDN_x2.yml"
    bad = tmp_path / "bad.yml"
    bad.write_text(f"_base_: {good}\nnetwork_g: {{num_fet: 3}}\n")
    assert main(["check", "--options-only", str(good)]) == 0
    assert re.fullmatch(rf"{good}: ok \(\d+\.\d s\)\n", capsys.readouterr().out)
    assert main(["check", "--options-only", str(bad), str(good)]) == 1
    out = capsys.readouterr().out
    assert f"{bad}: WRONG\nnetwork_g.num_fet ({bad}:2): unknown key; did you mean 'num_feat'?\n" in out
    assert f"{good}: ok" in out
    assert main(["check", str(good)]) == 1
    assert "does not exist" in capsys.readouterr().out
    assert main(["check", "--options-only", str(good), "--force_yml", "path:strict_load_d=true"]) == 0
    assert "note: path.strict_load_d (--force_yml): has no effect" in capsys.readouterr().out


def test_doctor(capsys):
    import torch

    main(["doctor"])
    out = capsys.readouterr().out
    assert str(ROOT / "basicsr") in out
    assert torch.__version__ in out
    assert "registered as arch" in out


def test_doctor_fails_when_a_member_does_not_import(monkeypatch, capsys):
    monkeypatch.setitem(ARCH_REGISTRY.import_failures, "basicsr.archs.broken_arch", "ImportError: no luck")
    assert main(["doctor"]) == 1
    assert "FAILED to import basicsr.archs.broken_arch: ImportError: no luck" in capsys.readouterr().out


def test_extras_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    block = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    declared = {
        name: tuple(re.findall(r'"([A-Za-z0-9_-]+)', modules))
        for name, modules in re.findall(r"^(\w+) = \[(.*)\]$", block, re.MULTILINE)
    }
    assert declared == EXTRAS


def test_the_module_runs():
    done = subprocess.run([sys.executable, "-m", "basicsr", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("basicsr-kd ")


def test_a_command_is_required():
    with pytest.raises(SystemExit):
        main([])
