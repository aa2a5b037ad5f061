"""Where the pairs of public data sets are found, by the names of files alone."""

import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from basicsr.data.layouts.sets import SETS
from basicsr.data.layouts.sidd_blocks import CLEAN, NOISY, read_blocks
from basicsr.data.layouts.tree import Tree


def _tree(root, files) -> Tree:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return Tree(str(root))


def _found(root, name, files, **options):
    """Part → name → (LQ, GT), relative to the source."""
    parts = SETS[name].find(_tree(root, files), **options)

    def shown(path):
        return path.removeprefix(f"{root}/")

    return {key: {pair.name: (shown(pair.lq), shown(pair.gt)) for pair in part.pairs} for key, part in parts.items()}


def _refusal(root, name, files) -> str:
    with pytest.raises(ValueError) as error:
        _found(root, name, files)
    return str(error.value).replace(str(root), "SOURCE")


@pytest.fixture
def source(tmp_path):
    """A folder whose name, and whose parent's, say nothing of a set or of a part."""
    folder = tmp_path / "downloads" / "unpacked"
    folder.mkdir(parents=True)
    return folder


SCENE = [f"GOPRO_Large/train/GOPR1/{kind}/000047.png" for kind in ("blur", "blur_gamma", "sharp")]


def test_gopro_scenes(source):
    files = [*SCENE, "GOPRO_Large/test/GOPR2/blur/000001.png", "GOPRO_Large/test/GOPR2/sharp/000001.png"]
    files += ["GOPRO_Large/train/GOPR3/blur/000047.png", "GOPRO_Large/train/GOPR3/sharp/000047.png"]
    train, test = "GOPRO_Large/train", "GOPRO_Large/test"
    assert _found(source, "GoPro", files) == {
        "train": {
            "GOPR1-000047": (f"{train}/GOPR1/blur/000047.png", f"{train}/GOPR1/sharp/000047.png"),
            "GOPR3-000047": (f"{train}/GOPR3/blur/000047.png", f"{train}/GOPR3/sharp/000047.png"),
        },
        "test": {"GOPR2-000001": (f"{test}/GOPR2/blur/000001.png", f"{test}/GOPR2/sharp/000001.png")},
    }


def test_gopro_variant(source):
    found = _found(source, "GoPro", SCENE, variant="blur_gamma")
    assert found["train"]["GOPR1-000047"][0] == "GOPRO_Large/train/GOPR1/blur_gamma/000047.png"


def test_gopro_from_the_folder_of_one_part(source):
    assert list(_found(source / "test", "GoPro", ["GOPR2/blur/1.png", "GOPR2/sharp/1.png"])) == ["test"]


@pytest.mark.parametrize("name", ["GoPro", "HIDE", "SIDD", "Rain13K", "Test100", "Test1200", "Test2800", "Rain100L"])
@pytest.mark.parametrize("base", ["test/{}", "{}/test", "Datasets/test/{}", "test"])
def test_input_and_target_of_a_test_part(source, name, base):
    base = base.format(name)
    found = _found(source, name, [f"{base}/input/1.png", f"{base}/target/1.png"])
    assert found == {"test": {"1": (f"{base}/input/1.png", f"{base}/target/1.png")}}


@pytest.mark.parametrize(
    "name, part", [("GoPro", "train"), ("Rain13K", "train"), ("Test100", "test"), ("HIDE", "test")]
)
def test_input_and_target_without_a_part(source, name, part):
    assert list(_found(source, name, ["input/1.png", "target/1.png"])) == [part]


def test_the_source_s_own_name_says_the_part(source):
    assert list(_found(source / "test" / "GoPro", "GoPro", ["input/1.png", "target/1.png"])) == ["test"]
    assert list(_found(source / "val", "SIDD", ["input_crops/1.png", "target_crops/1.png"])) == ["val"]


def test_hide(source):
    lq = ["HIDE_dataset/test/test-close-ups/1fromGOPR0950.png", "HIDE_dataset/test/test-long-shot/GO10.png"]
    gt = [f"HIDE_dataset/GT/{name}.png" for name in ("1fromGOPR0950", "GO10", "of_training")]
    assert _found(source, "HIDE", lq + gt) == {"test": {"1fromGOPR0950": (lq[0], gt[0]), "GO10": (lq[1], gt[1])}}
    (part,) = SETS["HIDE"].find(Tree(str(source))).values()
    assert part.spare_gt == [str(source / gt[2])]


@pytest.mark.parametrize("prefix", ["0001_", ""])
def test_sidd_scenes(source, prefix):
    scene = "SIDD_Medium_Srgb/Data/0001_001_S6_00100_00060_3200_L"
    lq, gt = ([f"{scene}/{prefix}{kind}_SRGB_{n}.PNG" for n in ("010", "011")] for kind in ("NOISY", "GT"))
    assert _found(source, "SIDD", [*lq, *gt, "SIDD_Medium_Srgb/ReadMe.txt"]) == {
        "train": {
            "0001_001_S6_00100_00060_3200_L_010": (lq[0], gt[0]),
            "0001_001_S6_00100_00060_3200_L_011": (lq[1], gt[1]),
        }
    }


def test_rain13k(source):
    bases = ["train/Rain13K", "test/Rain100L", "test/Test2800"]
    files = [f"{base}/{role}/1.jpg" for base in bases for role in ("input", "target")]
    found = _found(source, "Rain13K", files)
    assert found == {
        part: {"1": (f"{base}/input/1.jpg", f"{base}/target/1.jpg")}
        for part, base in zip(["train", "test/Rain100L", "test/Test2800"], bases)
    }


@pytest.mark.parametrize(
    "name, lq, gt, part",
    [
        ("Rain100L", "rain-001.png", "norain-001.png", "test"),
        ("Rain100L", "Rain100L/rain-001.png", "Rain100L/norain-001.png", "test"),
        ("Rain100H", "rainy/rain-001.png", "norain-001.png", "test"),
        ("Rain100L", "rain/input1.png", "norain/input1.png", "test"),
        (
            "Rain100L",
            "rain_data_test_Light/rain/X2/norain-001x2.png",
            "rain_data_test_Light/norain/norain-001.png",
            "test",
        ),
        ("Rain100H", "rain_data_train_Heavy/rain/norain-1x2.png", "rain_data_train_Heavy/norain/norain-1.png", "train"),
        ("Rain100L", "RainTrainL/rain-12.png", "RainTrainL/norain-12.png", "train"),
    ],
)
def test_rain100(source, name, lq, gt, part):
    streaks = lq.rpartition("/")[0] + "/rainstreak-001.png" if "norain" not in lq else "notes.txt"
    stem = lq.rpartition("/")[2].removesuffix(".png")
    assert _found(source, name, [lq, gt, streaks.removeprefix("/")] if "/" not in lq else [lq, gt]) == {
        part: {stem: (lq, gt)}
    }


def test_rain100l_beside_rain100h(source):
    files = [f"{name}/{file}" for name in ("Rain100L", "Rain100H") for file in ("rain-1.png", "norain-1.png")]
    assert _found(source, "Rain100L", files) == {"test": {"rain-1": ("Rain100L/rain-1.png", "Rain100L/norain-1.png")}}


def test_rain1400(source):
    lq = [f"rainy_image/901_{n}.jpg" for n in range(1, 15)]
    (pairs,) = _found(source, "Rain1400", [*lq, "ground_truth/901.jpg"]).values()
    assert pairs == {f"901_{n}": (f"rainy_image/901_{n}.jpg", "ground_truth/901.jpg") for n in range(1, 15)}
    images = ("rainy_image/9_1.jpg", "ground_truth/9.jpg")
    split = [f"{part}/{file}" for part in ("training", "testing") for file in images]
    assert list(_found(source / "split", "Rain1400", split)) == ["train", "test"]


def test_reside(source):
    ots = [
        "clear/0001.jpg",
        "clear/0002.jpg",
        "part1/0001_0.8_0.2.jpg",
        "part2/0001_1_0.04.jpg",
        "part2/0002_1_0.1.jpg",
    ]
    assert _found(source / "a", "RESIDE-OTS", ots) == {
        "train": {
            "0001_0.8_0.2": (ots[2], ots[0]),
            "0001_1_0.04": (ots[3], ots[0]),
            "0002_1_0.1": (ots[4], ots[1]),
        }
    }
    its = ["ITS/train/hazy/1_1_0.90179.png", "ITS/train/clear/1.png"]
    assert _found(source / "b", "RESIDE-ITS", its) == {"train": {"1_1_0.90179": (its[0], its[1])}}


def test_sots(source):
    files = ["SOTS/indoor/hazy/1400_1.png", "SOTS/indoor/gt/1400.png"]
    files += ["SOTS/outdoor/hazy/0001_0.8_0.2.jpg", "SOTS/outdoor/gt/0001.png"]
    assert _found(source, "SOTS-indoor", files) == {"test": {"1400_1": (files[0], files[1])}}
    assert _found(source, "SOTS-outdoor", files) == {"test": {"0001_0.8_0.2": (files[2], files[3])}}


def test_snow100k(source):
    training = [f"all/{kind}/smile_00003.jpg" for kind in ("synthetic", "gt", "mask")]
    deep = "media/jdway/GameSSD/overlapping/test"
    testing = [f"{deep}/Snow100K-{size}/{kind}/b_1.jpg" for size in "SL" for kind in ("synthetic", "gt", "mask")]
    assert _found(source, "Snow100K", training + testing) == {
        "train": {"smile_00003": (training[0], training[1])},
        "test/Snow100K-S": {"b_1": (testing[0], testing[1])},
        "test/Snow100K-L": {"b_1": (testing[3], testing[4])},
    }


# What is refused


def test_another_set(source):
    message = _refusal(source, "SIDD", SCENE)
    assert message.startswith("SOURCE does not look like SIDD: looked for Data/<scene>/*_{NOISY,GT}_SRGB_*.PNG")
    assert "found GOPRO_Large/train/GOPR1/blur (1 file, 000047.png …)" in message
    assert message.endswith(". It looks like GoPro")
    assert "It looks like Rain1400" in _refusal(source / "b", "GoPro", ["rainy_image/1_1.jpg", "ground_truth/1.jpg"])
    nothing = _refusal(source / "c", "GoPro", ["photos/1.jpg"])
    assert nothing.endswith("or {input,target}; found photos (1 file, 1.jpg …)")


def test_a_source_named_like_another_set(source):
    message = _refusal(source / "Rain100H", "Rain100L", ["rain-1.png", "norain-1.png"])
    assert message == "the source SOURCE is named Rain100H, not Rain100L; name that set, or rename it"


def test_an_empty_source(source):
    with pytest.raises(ValueError, match="does not look like HIDE: .*; found no file"):
        SETS["HIDE"].find(Tree(str(source)))


def test_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="the source .*nowhere does not exist"):
        Tree(str(tmp_path / "nowhere"))
    (tmp_path / "set.zip").touch()
    with pytest.raises(FileNotFoundError, match="source .*set.zip is a file, not a folder; unpack an archive first"):
        Tree(str(tmp_path / "set.zip"))


def test_images_without_partner(source):
    lq = [f"rain/{n}.png" for n in range(9)]
    gt = [f"norain/{n}.png" for n in range(2)]
    assert _refusal(source, "Rain100L", lq + gt) == (
        "SOURCE: 7 LQ images are without GT: 2.png, 3.png, 4.png, 5.png, 6.png and 2 more"
    )
    files = ["rain/1.png", "norain/1.png", "norain/2.png"]
    assert _refusal(source / "b", "Rain100L", files) == "SOURCE: 1 GT image is without LQ: 2.png"


def test_names_that_are_not_unique(source):
    files = ["rain/1.png", "rain/1.jpg", "norain/1.png"]
    assert "two LQ images would get the same name (1): " in _refusal(source, "Rain100L", files)
    files = ["rain/rain-1.png", "norain/norain-1.png", "norain/norain-001.png"]
    assert "two GT images are of the same LQ (1): " in _refusal(source / "b", "Rain100L", files)


def test_two_folders_for_one_part(source):
    bases = ("a/test/GoPro", "b/test/GoPro")
    message = _refusal(source, "GoPro", [f"{base}/{role}/1.png" for base in bases for role in ("input", "target")])
    assert "SOURCE/b/test/GoPro" in message and "SOURCE/a/test/GoPro" in message
    assert message.endswith("could both be the part 'test'; name one of them as the source")
    scenes = ["test/GOPR1/blur/1.png", "test/GOPR1/sharp/1.png", "test/GoPro/input/1.png", "test/GoPro/target/1.png"]
    assert "holds the part 'test' of GoPro in two layouts" in _refusal(source / "b", "GoPro", scenes)


def test_two_folders_of_gt(source):
    files = ["hazy/1_1.png", "gt/1.png", "clear/1.png"]
    assert _refusal(source, "SOTS-outdoor", files).endswith(" could both hold the GT; remove one of them")


def test_a_variant_that_is_not_there(source):
    with pytest.raises(ValueError, match="holds no <scene>/blur_gamma, for which a variant was chosen"):
        _found(source, "GoPro", ["train/GoPro/input/1.png", "train/GoPro/target/1.png"], variant="blur_gamma")


# SIDD's validation blocks


def _blocks(seed: int, shape=(2, 3, 8, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_sidd_blocks(source):
    noisy, clean = _blocks(0), _blocks(1)
    savemat(source / f"{NOISY}.mat", {NOISY: noisy}, do_compression=True)
    savemat(source / f"{CLEAN}.mat", {CLEAN: clean})
    pairs = SETS["SIDD"].find(Tree(str(source)))["val"].pairs
    assert [pair.name for pair in pairs] == ["0001_01", "0001_02", "0001_03", "0002_01", "0002_02", "0002_03"]
    for index, pair in enumerate(pairs):
        image, block = divmod(index, 3)
        np.testing.assert_array_equal(pair.lq, noisy[image, block][..., [2, 1, 0]])
        np.testing.assert_array_equal(pair.gt, clean[image, block][..., [2, 1, 0]])


def test_sidd_blocks_that_do_not_fit(source):
    savemat(source / f"{NOISY}.mat", {NOISY: _blocks(0)})
    assert f"SOURCE holds {NOISY}.mat and lacks {CLEAN}.mat" in _refusal(source, "SIDD", [])
    savemat(source / f"{CLEAN}.mat", {CLEAN: _blocks(0, (2, 2, 8, 6, 3))})
    assert "noisy blocks are (2, 3, 8, 6, 3) and the clean ones (2, 2, 8, 6, 3)" in _refusal(source, "SIDD", [])


def test_what_is_not_sidd_s_file(tmp_path):
    path = tmp_path / "x.mat"

    def refusal():
        with pytest.raises(ValueError) as error:
            read_blocks(str(path), NOISY)
        return str(error.value).removeprefix(str(path))

    path.write_bytes(b"<html>quota exceeded</html>")
    assert refusal() == " is not a MATLAB file: it begins with b'<html>qu'; download it again"
    path.write_bytes(b"")
    assert "is not a MATLAB file" in refusal()
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    assert refusal() == " is a MATLAB 7.3 file (HDF5), which is not read; save it again with MATLAB's -v7"
    savemat(path, {"BenchmarkNoisyBlocksSrgb": _blocks(0)})
    assert refusal() == f" has no variable {NOISY}, only BenchmarkNoisyBlocksSrgb; it is not SIDD's"
    savemat(path, {NOISY: _blocks(0).astype(float)})
    assert (
        refusal() == f": {NOISY} is double (2, 3, 8, 6, 3); SIDD's blocks are uint8 (images, blocks, height, width, 3)"
    )
    savemat(path, {NOISY: _blocks(0, (40, 32, 6, 3))})
    assert "is uint8 (40, 32, 6, 3);" in refusal()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_matlab_file(tmp_path, compressed):
    """Cut at every 29th byte, and with each of some bytes changed, a file is read, or refused with its name."""
    path = tmp_path / "x.mat"
    blocks = _blocks(0, (1, 2, 4, 4, 3))
    savemat(path, {NOISY: blocks}, do_compression=compressed)
    content = path.read_bytes()
    for end in range(0, len(content) - 8, 29):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="x.mat (is damaged or incomplete|is not a MATLAB file|has no variable)"):
            read_blocks(str(path), NOISY)
    rng = np.random.default_rng(0)
    for position in rng.integers(116, min(len(content), 300), 60):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert read_blocks(str(path), NOISY).dtype == np.uint8
        except ValueError as error:
            assert "x.mat" in str(error)


def test_a_matlab_file_that_promises_too_much(tmp_path):
    """A file of some hundred bytes whose header tells of terabytes."""
    name = NOISY.encode()
    dimensions = struct.pack("<5i", 2**20, 2**10, 256, 256, 3)
    element = struct.pack("<4I", 6, 8, 9, 0)  # array flags: class uint8
    element += struct.pack("<2I", 5, len(dimensions)) + dimensions + b"\0" * (-len(dimensions) % 8)
    element += struct.pack("<2I", 1, len(name)) + name + b"\0" * (-len(name) % 8)
    element += struct.pack("<2I", 2, 64) + b"\0" * 64
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM")
    compressed = zlib.compress(struct.pack("<2I", 14, len(element)) + element)
    (tmp_path / "x.mat").write_bytes(header + struct.pack("<2I", 15, len(compressed)) + compressed)
    with pytest.raises(ValueError, match="x.mat is damaged or incomplete"):
        read_blocks(str(tmp_path / "x.mat"), NOISY)
