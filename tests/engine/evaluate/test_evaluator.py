import json
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from basicsr.engine.evaluate.evaluator import DatasetResult, evaluate, image_name
from basicsr.utils.img_util import imread

from ...helpers import run_forked

PSNR = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}


class Images(Dataset):
    """Grey images whose error, the number of the image + 1 in steps of 1/255, is known."""

    def __init__(self, names, paired=True, size=8):
        self.names, self.paired, self.size = names, paired, size
        self.opt = {"name": "set", "dataroot_lq": "root/lq"}

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        torch.rand(1), np.random.rand(1), random.random()  # a data set may draw, and disturbs nobody
        lq = torch.full((3, self.size, self.size), (index + 1) / 255)
        item = {"lq": lq, "lq_path": f"root/lq/{self.names[index]}"}
        return {**item, "gt": torch.zeros_like(lq)} if self.paired else item


class Model:
    """The recipe's side of an evaluation: the output is the input."""

    def feed_data(self, data):
        self.lq = data["lq"]
        self.__dict__.pop("gt", None)
        if "gt" in data:
            self.gt = data["gt"]

    def test(self):
        torch.rand(1)
        self.output = self.lq

    def get_current_visuals(self):
        visuals = {"lq": self.lq, "result": self.output}
        return {**visuals, "gt": self.gt} if hasattr(self, "gt") else visuals


def run(names=("a.png", "b.c.png", "d.png"), metrics=PSNR, model=None, **arguments):
    paired = arguments.pop("paired", True)
    loader = DataLoader(Images(list(names), paired))
    return evaluate(model or Model(), loader, metrics, **arguments)


def test_each_image_and_the_mean():
    result = run()
    expected = [20 * np.log10(255 / error) for error in (1, 2, 3)]
    assert result.images == ["a", "b.c", "d"]
    assert result.values["psnr"] == pytest.approx(expected, abs=1e-9)
    assert result.means() == {"psnr": pytest.approx(np.mean(expected), abs=1e-9)}


def test_images_are_saved(tmp_path):
    run(save_path=lambda name: tmp_path / f"{name}_x.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_x.png", "b.c_x.png", "d_x.png"]
    assert (imread(tmp_path / "b.c_x.png") == 2).all()


def test_generators_are_left_as_they_were():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    run()
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_a_failing_measurement_names_the_image():
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 4}}
    with pytest.raises(ValueError, match=r"set, image a: crop_border 4 leaves nothing of an image of 8×8"):
        run(metrics=metrics)


def test_a_metric_that_needs_a_ground_truth_without_one():
    with pytest.raises(ValueError, match="the metric calculate_psnr compares with a ground truth"):
        run(paired=False)


def test_images_in_folders_keep_them_in_their_names(log):
    assert run(["a/1.png", "b/1.png", "b/2.png"]).images == ["a/1", "b/1", "b/2"]
    assert not log.records
    run(["1.png", "1.bmp"])
    assert "set: several images share the name 1; where images are saved, the last one is kept" in log.text


@pytest.mark.parametrize(
    ("path", "opt", "name"),
    [
        ("/data/lq/a.b.png", {"dataroot_gt": "/data/gt", "dataroot_lq": "/data/lq/"}, "a.b"),
        ("/elsewhere/x/a.png", {"dataroot_lq": "/data/lq"}, "a"),
        ("relative/x/a.png", {}, "a"),
        ("sub/key.x", {"dataroot_lq": "/data/lq.lmdb", "io_backend": {"type": "lmdb"}}, "sub/key.x"),
    ],
)
def test_names(path, opt, name):
    assert image_name({"lq_path": [path]}, opt) == name
    assert image_name({"gt_path": [path]}, opt) == name


def test_nan_is_told_and_left_out_of_the_mean(log, monkeypatch):
    """A metric that has no value for an image (NIQE of a tiny one) does not take the whole data set's."""
    values = iter([1.0, float("nan"), 3.0])
    monkeypatch.setattr("basicsr.engine.evaluate.evaluator.calculate_metric", lambda images, options: next(values))
    result = run(metrics={"niqe": {"type": "calculate_niqe"}})
    assert result.means() == {"niqe": 2.0}
    assert "set: niqe is NaN for b.c; its mean is over the other images." in log.text


def test_an_output_that_is_not_finite_is_told(log):

    class Broken(Model):
        def test(self):
            self.output = self.lq * (float("inf") if self.lq[0, 0, 0, 0] > 1.5 / 255 else 1)

    run(model=Broken())
    assert "set: the output holds NaN or infinite values for b.c, d; the figures mean nothing" in log.text


def test_means_do_not_depend_on_the_order():
    """Numbers whose naive sum depends on the order."""
    values = [1e16, 1.0, -1e16, 1.0, 0.1]
    means = {DatasetResult("s", [], {"m": random.Random(i).sample(values, 5)}).mean("m") for i in range(20)}
    assert means == {2.1 / 5}
    assert np.isnan(DatasetResult("s", [], {"m": [float("nan")]}).mean("m"))
    assert DatasetResult("s", [], {"m": [1.0, float("inf")]}).mean("m") == float("inf")


def be_rank(rank, folder):
    """The life of a rank of three, in a process of its own: the means and values that it finds go to a file."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    with open(folder / f"found_{rank}", "w") as file:
        for count in (2, 7):
            torch.manual_seed(rank)
            before = torch.get_rng_state()
            result = run([f"{i}.png" for i in range(count)], spread=True)
            assert torch.equal(before, torch.get_rng_state())
            print(json.dumps([result.images, result.values, result.means()]), file=file)
    dist.barrier()  # a rank that leaves early takes the connections of the others with it
    dist.destroy_process_group()


def test_ranks_share_the_images_and_agree_to_the_last_digit(tmp_path):
    """Three gloo ranks, with fewer images than ranks and with more."""
    ranks = run_forked(be_rank, [(rank, tmp_path) for rank in range(3)])
    assert [process.exitcode for process in ranks] == [0, 0, 0]
    outputs = [(tmp_path / f"found_{rank}").read_text().splitlines() for rank in range(3)]
    for line, count in enumerate((2, 7)):
        alone = run([f"{i}.png" for i in range(count)])
        for output in outputs:
            assert json.loads(output[line]) == [alone.images, alone.values, alone.means()]
