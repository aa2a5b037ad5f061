"""Published weights through test.py give the published figures (Hui et al., IMDN, ACM MM 2019, table 4)."""

import json

import pytest

PSNR_Y = {2: {"Set5": 38.00, "Set14": 33.63}, 3: {"Set5": 34.36, "Set14": 30.32}, 4: {"Set5": 32.21, "Set14": 28.58}}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imdn(runner, shared_data, scale):
    data = {"type": "PairedImageDataset", "filename_tmpl": f"{{}}x{scale}", "io_backend": {"type": "disk"}}
    options = {
        "name": f"imdn_x{scale}",
        "model_type": "SRModel",
        "scale": scale,
        "num_gpu": 0,
        "datasets": {
            f"test_{i}": {
                "name": name,
                **data,
                "dataroot_gt": str(shared_data / "sr" / name / "HR"),
                "dataroot_lq": str(shared_data / "sr" / name / "LR_bicubic" / f"X{scale}"),
            }
            for i, name in enumerate(PSNR_Y[scale])
        },
        "network_g": {"type": "IMDN", "upscale": scale},
        "path": {"pretrain_network_g": str(shared_data / "weights" / f"IMDN_x{scale}.pth")},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": scale, "test_y_channel": True}}},
    }
    report = json.loads((runner.test(options) / "results.json").read_text())["datasets"]
    for name, published in PSNR_Y[scale].items():
        assert report[name]["mean"]["psnr"] == pytest.approx(published, abs=0.01)
