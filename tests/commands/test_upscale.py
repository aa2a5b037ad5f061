"""``basicsr upscale`` as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from basicsr.archs import build_network
from basicsr.cli import main
from basicsr.commands.upscale import plan_jobs
from basicsr.test import test_pipeline as run_test_pipeline
from basicsr.utils.img_util import imread, imwrite, tensor2img

ROOT = Path(__file__).resolve().parents[2]
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2, "img_range": 1.0}


def picture(height, width, channels=3, dtype=np.uint8, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    state = build_network(EDSR).state_dict()
    torch.save({"params": {k: v * 0 for k, v in state.items()}, "params_ema": state}, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Pictures of all sorts, some broken."""
    root = tmp_path / "in"
    imwrite(picture(1, 1), root / "one.png")
    imwrite(picture(3, 5), root / "a.b.c.PNG")
    imwrite(picture(65, 33, 1), root / "sub" / "grau ü 灰.png")
    imwrite(picture(9, 4, 4), root / "sub" / "deep" / "alpha.png")
    imwrite(picture(6, 7, 3, np.uint16), root / "deep16.tif")
    imwrite(picture(6, 7, 4, np.uint16), root / "alpha16.png")
    imwrite(picture(16, 16), root / "photo.jpg")
    (root / "notes.txt").write_text("no image")
    return root


def upscale(weights, source, output, *more):
    paths = ["-i", str(source), "-o", str(output), "--weights", str(weights)]
    return main(["upscale", *paths, "--arch", json.dumps(EDSR), *more])


def network_output(weights, img):
    """The pixels by the network itself, from an image (H, W, 3)."""
    net = build_network(EDSR).eval()
    net.load_state_dict(torch.load(weights, weights_only=True)["params_ema"])
    x = torch.from_numpy(img[..., ::-1].astype(np.float32) / np.iinfo(img.dtype).max).permute(2, 0, 1)
    with torch.no_grad():
        return net(x[None])


def test_a_folder_of_all_sorts(weights, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert upscale(weights, folder, out, "--suffix", "_x2", "--device", "cpu") == 0
    results = {path.relative_to(out).as_posix(): imread(path, "unchanged") for path in out.rglob("*.png")}
    assert {name: (img.shape, img.dtype) for name, img in results.items()} == {
        "one_x2.png": ((2, 2, 3), np.uint8),
        "a.b.c_x2.png": ((6, 10, 3), np.uint8),
        "sub/grau ü 灰_x2.png": ((130, 66), np.uint8),
        "sub/deep/alpha_x2.png": ((18, 8, 4), np.uint8),
        "deep16_x2.png": ((12, 14, 3), np.uint16),
        "alpha16_x2.png": ((12, 14, 4), np.uint16),
        "photo_x2.png": ((32, 32, 3), np.uint8),
    }
    expected = network_output(weights, picture(3, 5))
    assert (results["a.b.c_x2.png"] == tensor2img(expected)).all()
    deep = network_output(weights, picture(6, 7, 3, np.uint16))[0].permute(1, 2, 0).numpy()[..., ::-1]
    np.testing.assert_allclose(results["deep16_x2.png"], deep.clip(0, 1) * 65535, atol=0.51)
    printed = capsys.readouterr()
    assert "1 file in" in printed.out
    assert f"7 of 7 images upscaled by 2 into {out}." in printed.out
    assert not printed.err.count("failed")


def test_broken_images_are_named_and_the_others_done(weights, folder, tmp_path, capsys):
    (folder / "empty.png").write_bytes(b"")
    (folder / "sub" / "torn.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:40])
    (folder / "text.png").write_text("not an image")
    out = tmp_path / "out"
    assert upscale(weights, folder, out) == 1
    assert len(list(out.rglob("*.png"))) == 7
    printed = capsys.readouterr()
    assert "7 of 10 images upscaled" in printed.out
    failures = printed.err.split("3 images failed:\n")[1]
    for name in ("empty.png", "torn.jpg", "text.png"):
        assert name in failures


def test_results_that_exist_are_kept_unless_told(weights, folder, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "one.png").parent.mkdir()
    (out / "one.png").write_bytes(b"mine")
    assert upscale(weights, folder, out) == 0
    assert (out / "one.png").read_bytes() == b"mine"
    printed = capsys.readouterr().out
    assert "1 image left out: the result exists (--overwrite replaces it)." in printed
    assert "6 of 7 images upscaled" in printed
    assert upscale(weights, folder / "one.png", out, "--overwrite") == 0
    assert imread(out / "one.png").shape == (2, 2, 3)


def test_a_network_that_keeps_the_size(tmp_path, capsys):
    """NAFNet whose last convolution is zero gives back its input: a padded side is cut, and every depth stays."""
    opt = {"type": "NAFNet", "width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
    state = build_network(opt).state_dict()
    state |= {key: state[key] * 0 for key in ("ending.weight", "ending.bias")}
    torch.save({"params": state}, tmp_path / "n.pth")
    images = {"noisy": picture(33, 21), "gray": picture(9, 14, 1), "deep": picture(12, 7, 3, np.uint16)}
    for name, img in images.items():
        imwrite(img, tmp_path / "in" / f"{name}.png")
    paths = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(tmp_path / "n.pth")]
    assert main(["upscale", *paths, "--arch", json.dumps(opt), "--device", "cpu"]) == 0
    for name, img in images.items():
        assert (imread(tmp_path / "out" / f"{name}.png", "unchanged") == img).all(), name
    assert f"3 of 3 images restored into {tmp_path / 'out'}." in capsys.readouterr().out


def test_one_file_tiles_and_self_ensemble(weights, tmp_path):
    """Tiles leave these pixels as they are: the overlap of 32 holds the network's receptive radius of 5 four times."""
    img = picture(65, 97)
    imwrite(img, tmp_path / "i.bmp")
    for name, more in {"whole": ["--tile", "0"], "tiled": ["--tile", "64"], "auto": ["--tile", "auto"]}.items():
        assert upscale(weights, tmp_path / "i.bmp", tmp_path / name, *more) == 0
    whole, tiled, auto = (imread(tmp_path / name / "i.png").astype(int) for name in ("whole", "tiled", "auto"))
    assert (whole == tensor2img(network_output(weights, img))).all()
    assert np.abs(tiled - whole).max() <= 1
    assert (auto == whole).all()
    assert upscale(weights, tmp_path / "i.bmp", tmp_path / "x8", "--tile", "0", "--self_ensemble") == 0
    turned_back = []
    for turns in range(4):
        for step in (1, -1):
            variant = np.rot90(img, turns)[:, ::step].copy()
            output = network_output(weights, variant)[0].permute(1, 2, 0).numpy()[..., ::-1]
            turned_back.append(np.rot90(output[:, ::step], -turns))
    expected = np.clip(np.mean(turned_back, axis=0), 0, 1) * 255
    np.testing.assert_allclose(imread(tmp_path / "x8" / "i.png"), expected, atol=0.501)


def test_the_same_pixels_as_test_py(weights, tmp_path, monkeypatch):
    """Through the option file of a test, ``upscale`` writes the images that ``test.py`` writes."""
    for index, size in enumerate([(8, 11), (40, 9)]):
        imwrite(picture(*size, seed=index), tmp_path / "lq" / f"{index}.png")
    options = {
        "name": "run",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "datasets": {"test": {"name": "set", "type": "SingleImageDataset", "dataroot_lq": str(tmp_path / "lq")}},
        "network_g": EDSR,
        "path": {"pretrain_network_g": str(weights)},
        "val": {"save_img": True, "suffix": "s", "window_size": 4, "tile": 32, "self_ensemble": True},
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(options))
    monkeypatch.setattr(sys, "argv", ["test.py", "-opt", str(file)])
    run_test_pipeline(str(tmp_path))
    command = ["upscale", "-i", str(tmp_path / "lq"), "-o", str(tmp_path / "out"), "--opt", str(file)]
    assert main([*command, "--suffix", "_s"]) == 0
    for index in range(2):
        tested = imread(tmp_path / "results" / "run" / "visualization" / "set" / f"{index}_s.png")
        assert (imread(tmp_path / "out" / f"{index}_s.png") == tested).all()


def names(jobs, root):
    return {job.source.relative_to(root).as_posix(): job.target.as_posix() for job in jobs}


def test_results_with_the_same_name_keep_the_extension(tmp_path):
    for name in ("a.jpg", "a.png", "b.png", "sub/a.png"):
        imwrite(picture(2, 2), tmp_path / name)
    jobs, ignored = plan_jobs(tmp_path, Path("out"), "_s")
    assert names(jobs, tmp_path) == {
        "a.jpg": "out/a.jpg_s.png",
        "a.png": "out/a.png_s.png",
        "b.png": "out/b_s.png",
        "sub/a.png": "out/sub/a_s.png",
    }
    assert ignored == 0
    imwrite(picture(2, 2), tmp_path / "a.jpg.png")
    with pytest.raises(ValueError, match="2 images would become out/a.jpg.png; rename"):
        plan_jobs(tmp_path, Path("out"))


def test_the_output_folder_is_not_searched(tmp_path):
    for name in ("a.png", "out/a.png", "outer/b.png"):
        imwrite(picture(2, 2), tmp_path / name)
    jobs, _ = plan_jobs(tmp_path, tmp_path / "out")
    assert list(names(jobs, tmp_path)) == ["a.png", "outer/b.png"]


def test_images_that_are_read_are_never_replaced(tmp_path):
    imwrite(picture(2, 2), tmp_path / "a.png")
    for source in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(ValueError, match=r"a.png is read and would be replaced; choose another .* --suffix"):
            plan_jobs(source, tmp_path)
        assert plan_jobs(source, tmp_path, "_x2")[0][0].target == tmp_path / "a_x2.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-i", "nowhere"], "error: the input nowhere does not exist"),
        (["-i", "{tmp}/empty"], "holds no images (bmp, jpeg"),
        (["-o", "{tmp}/a.png"], "must be a folder, and is a file"),
        (["--suffix", "a/b"], "--suffix a/b must not hold a path separator"),
        (["--weights", "absent.pth"], "the checkpoint absent.pth does not exist"),
        (["--weights", "{tmp}/a.png"], "a.png is damaged or not a checkpoint"),
        (["--arch", "{type: EDRS}"], "Did you mean 'EDSR'"),
        (["--arch", "[1, 2]"], "--arch [1, 2]: no mapping; it describes the network, as in '{type: EDSR"),
        (["--arch", "{type: EDSR"], "--arch"),
        (["--arch", "EDSR"], "Network 'EDSR' cannot be built from its options"),
        (["--arch", "IMDN"], "does not fit IMDN: none of its keys does"),
        (["--device", "cuda:77"], "--device cuda:77 cannot be used here"),
        (["--device", "gpu"], "--device gpu cannot be used here"),
        (["--tile", "40", "--tile_overlap", "30"], "tiles of 40 pixels cannot overlap by 30"),
        (["--imports", "no_such_module"], "no_such_module"),
    ],
)
def test_what_cannot_be_started_is_a_sentence(weights, tmp_path, capsys, change, message):
    (tmp_path / "empty").mkdir()
    imwrite(picture(2, 2), tmp_path / "a.png")
    change = [part.replace("{tmp}", str(tmp_path)) for part in change]
    command = ["-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--weights", str(weights)]
    arch = [] if "--arch" in change else ["--arch", json.dumps(EDSR)]
    assert main(["upscale", *command, *arch, *change]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_an_option_file_without_weights_or_network(tmp_path, capsys):
    imwrite(picture(2, 2), tmp_path / "a.png")
    file = tmp_path / "o.yml"
    for text, message in (
        (f"network_g: {json.dumps(EDSR)}", "give the network's --weights; the option file names none"),
        ("name: x", "o.yml has no section network_g"),
    ):
        file.write_text(text)
        assert main(["upscale", "-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--opt", str(file)]) == 2
        assert message in capsys.readouterr().err


def test_wrong_tile_and_missing_network(capsys):
    for arguments, message in (
        (["--arch", "EDSR", "--tile", "big"], "must be a number of pixels, 0 for none, or auto, not 'big'"),
        ([], "one of the arguments --opt --arch is required"),
    ):
        with pytest.raises(SystemExit):
            main(["upscale", "-i", "a", "-o", "b", *arguments])
        assert message in capsys.readouterr().err


def test_names_that_the_terminal_cannot_show(weights, tmp_path):
    """In an ASCII terminal, a file name of undecodable bytes."""
    root = tmp_path / "in"
    imwrite(picture(2, 2), root / "灰.png")
    broken = root / "bad\udcff.png"
    broken.write_bytes(b"")
    command = [sys.executable, "-m", "basicsr", "upscale", "-i", str(root), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--weights", str(weights), "--arch", json.dumps(EDSR)],
        cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii", "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "1 of 2 images upscaled" in done.stdout
    assert "bad\\udcff.png" in done.stderr
    assert cv2.haveImageReader(str(tmp_path / "out" / "灰.png"))


@pytest.mark.parametrize("as_option", [True, False])
def test_local_statistics_are_not_cut_by_tiles(tmp_path, monkeypatch, capsys, as_option):
    """Also where memory is short, which tiles would save; as an option, or as the network of the release."""
    torch.manual_seed(0)
    network = {"type": "NAFNet", "width": 2, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
    net = build_network(network).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    file = tmp_path / "x.yml"
    options = {"name": "x", "model_type": "SRModel", "scale": 1, "num_gpu": 0, "network_g": network, "datasets": {}}
    options |= {"path": {"pretrain_network_g": str(tmp_path / "net.pth")}, "val": {"local_statistics": 16}}
    if not as_option:
        options |= {"network_g": {**network, "type": "NAFNetLocal", "train_size": [1, 3, 16, 16]}, "val": {}}
    file.write_text(yaml.safe_dump(options))
    img = picture(150, 140)
    imwrite(img, tmp_path / "in.png")
    monkeypatch.setattr("basicsr.engine.restore.restorer.free_memory", lambda device: 0)
    command = ["upscale", "-i", str(tmp_path / "in.png"), "-o", str(tmp_path / "out"), "--opt", str(file)]
    assert main(command) == 0
    x = torch.from_numpy(img[..., ::-1].astype(np.float32) / 255).permute(2, 0, 1)
    with torch.no_grad(), net.local_statistics(16):
        expected = tensor2img(net(x[None]))
    np.testing.assert_array_equal(imread(tmp_path / "out" / "in.png", "unchanged"), expected)
    capsys.readouterr()
    assert main([*command, "--tile", "64", "--overwrite"]) != 0
    name = "val.local_statistics" if as_option else "NAFNetLocal"
    assert f"{name} cannot be used with tiles" in capsys.readouterr().err
