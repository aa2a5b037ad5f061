"""The option files of Restormer, Uformer and NAFNet: sizes of networks, and that methods differ in nothing else."""

from pathlib import Path

import pytest

from basicsr.utils.options.files import load_options

from .test_option_files import OPTIONS, parameters

TASKS = {
    "Restormer": ("Rain13K", "Rain1400", "GoPro", "SIDD", "OTS"),
    "Uformer": ("Rain13K", "Rain1400", "GoPro", "SIDD", "OTS"),
    "NAFNet": ("GoPro",),
}
CASES = [(arch, task) for arch, tasks in TASKS.items() for task in tasks]
PARAMETERS = {  # published, of the teacher and the student
    "Restormer": (26_126_644, 3_813_230),
    "Uformer": (50_880_946, 5_291_853),  # B and T, with modulators; without, T has the 5.23M of its paper
    "NAFNet": (17_111_907, 2_683_059),
}
MEASURED_ON_Y = ("Rain13K", "Rain1400")


def load(folder: str, arch: str, name: str) -> dict:
    return load_options(OPTIONS / folder / arch / f"{folder}_{arch}_{name}.yml")[0]


def without_method(options: dict) -> dict:
    kept = {key: value for key, value in options.items() if key not in ("name", "model_type", "path")}
    kept["train"] = {key: value for key, value in kept["train"].items() if key != "kd_opt"}
    return {key: value for key, value in kept.items() if not key.startswith("network_") or key == "network_g"}


@pytest.mark.parametrize(("arch", "task"), CASES)
def test_methods_differ_in_their_terms_only(arch, task):
    alone, taught = load("train", arch, f"S_{task}_scratch"), load("train", arch, f"L_{task}_scratch")
    if task != "SIDD" or arch != "Restormer":  # there the norms have no bias
        assert (parameters(taught["network_g"]), parameters(alone["network_g"])) == PARAMETERS[arch]
    methods = {"logits": f"S_{task}_logits", "DCKD": f"{task}_DCKD"} | (
        {"SKD": f"{task}_SKD"} if arch != "NAFNet" else {}
    )
    terms = {"logits": ["logits"], "DCKD": ["logits", "dcr", "dmm"], "SKD": ["mca", "contrast"]}
    for method, name in methods.items():
        distilled = load("train", arch, name)
        assert distilled["network_t"] == taught["network_g"]
        assert without_method(distilled) == without_method(alone)
        assert list(distilled["train"]["kd_opt"]) == terms[method]
    assert without_method(taught) | {"network_g": None} == without_method(alone) | {"network_g": None}


@pytest.mark.parametrize(("arch", "task"), CASES)
def test_tests_measure_as_the_papers_do(arch, task):
    for size in "LS":
        test, trained = load("test", arch, f"{size}_{task}"), load("train", arch, f"{size}_{task}_scratch")
        assert test["network_g"] == trained["network_g"]
        assert test["val"].get("local_statistics") == trained["val"].get("local_statistics")
        for options in (test, trained):
            for metric in options["val"]["metrics"].values():
                assert metric["test_y_channel"] is (task in MEASURED_ON_Y) and metric["crop_border"] == 0


def test_every_file_is_covered():
    folders = [OPTIONS / kind / arch for kind in ("train", "test") for arch in TASKS]
    names = {path.stem for folder in folders for path in Path(folder).glob("*.yml")}
    expected = {f"test_{arch}_{size}_{task}" for arch, task in CASES for size in "LS"}
    for arch, task in CASES:
        expected |= {f"train_{arch}_{name}" for name in (f"L_{task}_scratch", f"S_{task}_scratch", f"S_{task}_logits")}
        expected |= {f"train_{arch}_{task}_DCKD"} | ({f"train_{arch}_{task}_SKD"} if arch != "NAFNet" else set())
    assert names == expected
