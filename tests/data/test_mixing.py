"""Mixup and CutMix of training batches: the published formulas, and numbers that depend on seed and iteration only."""

import random

import numpy as np
import pytest
import torch

from basicsr.data.mixing import Mixing, cutmix, draw_box, mixup
from basicsr.data.seeding import mix_seed
from basicsr.data.stream import build_streams
from basicsr.utils.options.sections import MixingOptions

from .test_patch_schedule import SizedDataset, section


def batch(count=5, side=12, scale=2):
    """GT is LQ enlarged by repetition, so that a pair stays recognisable."""
    lq = torch.rand(count, 3, side, side + 4, generator=torch.Generator().manual_seed(count))
    gt = lq.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    return {"lq": lq, "gt": gt, "lq_path": [f"{i}.png" for i in range(count)]}


def mixing(seed=7, rank=0, **options):
    return Mixing(MixingOptions.of(options), seed, rank)


def test_mixup_is_the_published_formula():
    """In float64, element by element."""
    image, partners, ratio = batch()["lq"], [3, 1, 0, 4, 2], 0.3
    x = image.double().numpy()
    expected = np.stack([0.3 * x[i] + 0.7 * x[j] for i, j in enumerate(partners)])
    np.testing.assert_allclose(mixup(image, partners, ratio).numpy(), expected, atol=1e-6)


def test_a_mixed_batch_is_mixup_of_one_ratio_and_a_permutation():
    """Both are recovered from the batch, without knowing what was drawn."""
    given = batch()
    ratios = set()
    for iteration in range(1, 20):
        mixed = mixing(mixup=True)(given, iteration)
        x, y = (b["lq"].double().flatten(1).numpy() for b in (given, mixed))
        partners, found = [], []
        for i in range(5):
            # y_i − x_i = (1 − λ)·(x_j − x_i): the partner is the sample that this is a multiple of
            errors = []
            for j in range(5):
                d = x[j] - x[i]
                weight = float(d @ (y[i] - x[i]) / (d @ d)) if j != i else 0.0
                errors.append((np.abs(y[i] - x[i] - weight * d).max(), j, weight))
            # a sample that is its own partner stays as it is, but for rounding
            error, j, weight = errors[i] if errors[i][0] < 1e-6 else min(errors)
            assert error < 1e-6
            partners.append(j)
            found += [1 - weight] if j != i else []
        assert sorted(partners) == list(range(5))
        if found:
            assert np.ptp(found) < 1e-5 and 0 < found[0] < 1
            ratios.add(round(found[0], 4))
        # the pair stays a pair
        np.testing.assert_array_equal(mixed["gt"][..., ::2, ::2].numpy(), mixed["lq"].numpy())
        assert mixed["lq_path"] is given["lq_path"]
    assert len(ratios) > 15, "each iteration draws its own"


def test_the_ratio_has_the_distribution_of_the_options():
    """Beta(β, β) has the mean 1/2 and the variance 1/(4·(2β + 1))."""
    for beta in (0.4, 1.2, 5.0):
        drawn = []
        for iteration in range(4000):
            rng = random.Random(mix_seed(7, "mixing", iteration, 0))
            rng.choice(["mixup"])
            expected = rng.betavariate(beta, beta)
            if iteration < 20:
                given = {"lq": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).double()}
                mixed = mixing(mixup=True, mixup_beta=beta)(given, iteration)["lq"].flatten().tolist()
                assert mixed == pytest.approx([0, 1]) or mixed == pytest.approx([1 - expected, expected])
            drawn.append(expected)
        assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)
        assert np.var(drawn) == pytest.approx(1 / (4 * (2 * beta + 1)), rel=0.1)


def test_a_box_of_cutmix():
    """Sides √(1 − λ) of the image's around a centre, cut off at the edges; its mean share of an uncut one is 1 − λ."""
    rng = random.Random(0)
    for ratio, height, width in ((0.75, 40, 80), (0.0, 16, 16), (1.0, 16, 16), (0.36, 50, 50)):
        half = [int(length * (1 - ratio) ** 0.5) // 2 for length in (height, width)]
        seen = 0
        for _ in range(300):
            top, bottom, left, right = draw_box(height, width, ratio, rng)
            assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
            if top > 0 and bottom < height:
                assert bottom - top == 2 * half[0]
                seen += 1
            if left > 0 and right < width:
                assert right - left == 2 * half[1]
        assert ratio == 0.0 or seen > 30


def test_cutmix_pastes_the_partners_box_into_lq_and_gt_alike():
    given, partners, box = batch(3), [2, 0, 1], (3, 9, 5, 11)
    lq, gt = (cutmix(given[key], partners, box, factor) for key, factor in (("lq", 1), ("gt", 2)))
    for i, j in enumerate(partners):
        for y in range(12):
            for x in range(16):
                source = j if 3 <= y < 9 and 5 <= x < 11 else i
                assert torch.equal(lq[i, :, y, x], given["lq"][source, :, y, x])
    assert torch.equal(gt[..., ::2, ::2], lq) and torch.equal(gt[..., 1::2, 1::2], lq)


def test_cutmix_of_a_batch_keeps_pairs_and_the_input():
    given = batch()
    copy = {key: given[key].clone() for key in ("lq", "gt")}
    changed = 0
    for iteration in range(30):
        mixed = mixing(cutmix=True)(given, iteration)
        assert torch.equal(mixed["gt"][..., ::2, ::2], mixed["lq"])
        changed += not torch.equal(mixed["lq"], given["lq"])
    assert changed > 20
    assert all(torch.equal(given[key], copy[key]) for key in copy), "what the loader gave is left alone"


def test_each_kind_that_is_on_is_chosen_as_often():
    given = {"lq": torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])}
    for options in ({"mixup": True, "use_identity": True}, {"mixup": True, "cutmix": True, "use_identity": True}):
        kinds = {"same": 0, "mixup": 0, "cutmix": 0}
        for iteration in range(3000):
            first = mixing(**options)(given, iteration)["lq"][0]
            kind = "same" if not first.any() else "cutmix" if set(first.unique().tolist()) <= {0.0, 1.0} else "mixup"
            kinds[kind] += 1
        share = 3000 / len(options)
        # half of the permutations of two leave each sample with itself, which looks like the identity
        assert kinds["mixup"] == pytest.approx(share / 2, rel=0.1)
        if "cutmix" in options:
            assert kinds["cutmix"] == pytest.approx(share / 2, rel=0.15)
        else:
            assert kinds["cutmix"] == 0


def test_what_is_drawn_depends_on_seed_iteration_and_rank_only():
    given = batch()
    options = {"mixup": True, "cutmix": True}

    def run(**place):
        return [mixing(**options, **place)(given, iteration)["lq"] for iteration in range(4)]

    random.seed(1), torch.manual_seed(1)
    state = random.getstate(), torch.get_rng_state()
    first = run()
    assert random.getstate() == state[0] and torch.equal(torch.get_rng_state(), state[1])
    random.seed(2)
    assert all(map(torch.equal, first, run()))
    assert not all(map(torch.equal, first, run(rank=1)))
    assert not all(map(torch.equal, first, run(seed=8)))


def test_other_images_are_mixed_and_other_values_refused():
    given = batch()
    guide = given["gt"][:, :1]
    mixed = mixing(mixup=True)({**given, "guide": guide, "kernel": torch.rand(21, 21)}, 1)
    assert torch.equal(mixed["guide"], mixed["gt"][:, :1])
    for key, value in (
        ("sigma", torch.rand(5)),
        ("label", torch.arange(5)),
        ("kernels", torch.rand(5, 1, 7, 7)),
        ("mask", torch.ones(5, 1, 12, 16, dtype=torch.bool)),
    ):
        with pytest.raises(ValueError, match=f"cannot mix the key '{key}' of the batch"):
            mixing(mixup=True)({**given, key: value}, 1)
    with pytest.raises(ValueError, match="mixes images `lq`"):
        mixing(mixup=True)({"gt": given["gt"]}, 1)


def test_a_batch_of_one_is_left_alone():
    given = batch(1)
    assert torch.equal(mixing(mixup=True)(given, 1)["lq"], given["lq"])


class TestStream:
    """Where the batches of a run are mixed."""

    def streams(self, mixing_augs, recipe="OneScheduleRecipe", **datasets):
        run = {"num_gpu": 0, "dist": False, "rank": 0, "world_size": 1, "manual_seed": 3}
        return build_streams({"model_type": recipe, "datasets": datasets, **run, "train": {"mixing_augs": mixing_augs}})

    def images(self, stream, batches):
        return [stream.next()["lq"] for _ in range(batches)]

    @pytest.fixture
    def noisy(self, monkeypatch):
        """SizedDataset with random pixels; what else it gives cannot be mixed."""
        original = SizedDataset.__getitem__

        def read(self, index):
            sample = original(self, index)
            return {"lq": torch.full_like(sample["lq"], random.random()), "gt": sample["gt"]}

        monkeypatch.setattr(SizedDataset, "__getitem__", read)

    def test_resumes_anywhere_and_whatever_the_workers(self, noisy):
        options = section(gt_sizes=[8, 16], mini_batch_sizes=[4, 3], iters=[3, 3])
        (stream,) = self.streams({"mixup": True}, train=options)
        expected = self.images(stream, 6)
        (plain,) = self.streams(None, train=options)
        assert not all(map(torch.equal, expected, self.images(plain, 6)))
        (other,) = self.streams({"mixup": True}, train={**options, "num_worker_per_gpu": 1})
        other.start_at(0, 12, 3)
        assert all(map(torch.equal, expected[3:], self.images(other, 3)))

    def test_each_stream_draws_its_own(self, noisy):
        s, t = self.streams({"mixup": True}, "TwoScheduleRecipe", train_s=section(), train_t=section())
        assert s._mixing._seed != t._mixing._seed

    def test_off_unless_something_is_on(self):
        for options in (None, {}, {"mixup": False}, {"use_identity": True}):
            (stream,) = self.streams(options, train=section())
            assert not stream.needs_iterations
