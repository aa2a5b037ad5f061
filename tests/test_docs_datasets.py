"""The examples of docs/datasets.md are valid options, and run."""

import re
import textwrap

import numpy as np
import pytest
import yaml

from basicsr.data.degraded_image_dataset import build_degradations
from basicsr.utils.options import read_options

from .helpers import REPOSITORY

PAGE = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(textwrap.dedent(text)) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
REST = {
    "name": "x",
    "model_type": "SRModel",
    "network_g": {"type": "DnCNN", "in_nc": 3, "out_nc": 3},
    "train": {
        "total_iter": 10,
        "optim_g": {"type": "Adam", "lr": 1e-4},
        "scheduler": {"type": "MultiStepLR", "milestones": [5]},
        "pixel_opt": {"type": "L1Loss"},
    },
    "logger": {"print_freq": 1, "save_checkpoint_freq": 5},
}


def whole(block):
    """The options of an example: those of a run, or some keys of a set."""
    if "datasets" in block:
        metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}
        return REST | block | ({"val": {"val_freq": 5, "metrics": metrics}} if "val" in block["datasets"] else {})
    kind = "DegradedImageDataset" if "degradations" in block else "PairedImageDataset"
    places = {"dataroot_gt": "gt"} if kind == "DegradedImageDataset" else {"dataroot_gt": "gt", "dataroot_lq": "lq"}
    shared = {"name": "n", "gt_size": 8, "batch_size_per_gpu": 1, "num_worker_per_gpu": 0}
    return REST | {"scale": 1, "datasets": {"train": {"type": kind, **shared, **places, **block}}}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: next(iter(block)))
def test_examples_pass_the_check_without_notices(block, tmp_path):
    file = tmp_path / "x.yml"
    file.write_text(yaml.safe_dump(whole(block)))
    assert read_options(file)[1] == []


def test_every_degradation_and_dataset_is_on_the_page():
    from basicsr.utils.registry import DATASET_REGISTRY, DEGRADATION_REGISTRY

    for registry in (DATASET_REGISTRY, DEGRADATION_REGISTRY):
        ours = [name for name, target in registry if target.__module__.startswith("basicsr.")]
        assert len(ours) >= 4 and [name for name in ours if f"| `{name}` |" not in PAGE] == []


def test_a_degradation_of_ones_own():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {"__name__": "plugin"}
    exec(code, names)
    (degrade,) = build_degradations([{"type": "vignette", "strength": 0.8}])
    darker = degrade(np.ones((5, 7, 3), np.float32), np.random.default_rng(0))
    assert darker[2, 3, 0] == 1 and darker[0, 0, 0] == pytest.approx(0.2)  # 1 − 0.8 · (1 + 1) / 2
    with pytest.raises(ValueError, match="strength: must be a number, not 'x'"):
        build_degradations([{"type": "vignette", "strength": "x"}])
