"""Several validation sets in one run, on several ranks."""

import shutil

from basicsr.utils.img_util import imread


def test_sets_with_equal_names_keep_their_pictures_on_all_ranks(launcher, options, images, tmp_path):
    """The second set lacks the first image, so that another rank restores the images that the first set has, too."""
    for name in ("hr", "lr"):
        shutil.copytree(images / name, tmp_path / "less" / name)
        (tmp_path / "less" / name / "img.0.png").unlink()
    less = {f"dataroot_{role}": str(tmp_path / "less" / name) for role, name in (("gt", "hr"), ("lq", "lr"))}
    del options["network_t"], options["train"]["kd_opt"]
    options |= {"model_type": "SRModel"}
    options["datasets"]["val_2"] = {**options["datasets"]["val"], **less, "name": "less"}
    options["train"]["total_iter"] = 2
    options["val"] |= {"val_freq": 2, "save_img": True}
    runs = launcher.start_ranks(2, options)
    assert [run.wait() for run in runs] == [0, 0], runs[0].text[-2000:]
    root = launcher.root / "experiments" / "tiny" / "visualization"
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    first = [f"img.{index}/img.{index}_2.png" for index in range(4)]
    assert found == sorted(first + [f"less/{name}" for name in first[1:]])
    for name in first[1:]:
        assert (imread(root / "less" / name) == imread(root / name)).all()  # the images are the same
