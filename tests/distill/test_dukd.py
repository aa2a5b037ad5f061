"""DUKD against its formulas, image by image in float64, on the images that the networks really saw."""

import math

import pytest
import torch

from .helpers import distil, how_turned, network, take_step, turned, turned_back

SEEDS = (0, 1, 6, 10)
ZOOMS = [{"zoom_out": False}, {"zoom_in": False}, {}]


@pytest.fixture
def images():
    """Inputs of black and white blocks, so that shrinking overshoots, and a ground truth."""
    generator = torch.Generator().manual_seed(3)
    blocks = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=generator).round()
    lq = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    gt = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=generator)
    return lq, gt


def run(images, seed=0, **options):
    """The losses of a step, the two networks, and by zoom what student and teacher saw."""
    distillation = distil({"up": {"type": "DUKD", **options}})
    torch.manual_seed(seed)
    _, losses = take_step(distillation, *images)
    student, teacher = network(distillation, "g"), network(distillation, "t")
    kinds = {16: "in", 8: "out"}
    student_saw = {kinds[x.shape[-1]]: x for x in student.seen[1:]}  # the first is the batch's own input
    teacher_saw = {kinds[x.shape[-1]]: x for x in teacher.seen}
    assert student_saw.keys() == teacher_saw.keys()
    assert len(student.seen) == 1 + len(student_saw) and len(teacher.seen) == len(teacher_saw), "one pass for each"
    return losses, student, teacher, student_saw, teacher_saw


def restored(net, image):
    """A network's output for one image, by itself."""
    with torch.no_grad():
        return net(image[None])[0]


def halved(image):
    """MATLAB's imresize(image, 0.5) by definition: Keys' kernel twice as wide, the border mirrored."""

    def keys(t):
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0

    def matrix(size):
        result = torch.zeros(size // 2, size, dtype=torch.float64)
        for row in range(size // 2):
            centre = 2 * row + 0.5
            for place in range(math.floor(centre) - 5, math.floor(centre) + 7):
                mirrored = -1 - place if place < 0 else 2 * size - 1 - place if place >= size else place
                result[row, mirrored] += keys((centre - place) / 2) / 2
        return result / result.sum(1, keepdim=True)

    return matrix(image.shape[-2]) @ image @ matrix(image.shape[-1]).t()


def places_of(cell, image):
    """Where a crop of 16×16 lies in an image of 32×32."""
    return [(y, x) for y in range(17) for x in range(17) if torch.equal(image[:, y : y + 16, x : x + 16], cell)]


@pytest.mark.parametrize("zoom", ZOOMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_release_form(images, zoom, seed):
    """In: |A⁻¹(S(A(x))) − T(x)| for x a cell of the grid. Out: |S(x) − T(x)| and |S(x) − lq| for x shrunk."""
    lq, gt = images
    losses, student, teacher, student_saw, teacher_saw = run(images, seed, form="release", prob=0.5, **zoom)
    expected = {}
    if zoom.get("zoom_in", True):
        expected["l_up_in"] = 0.0
        for turned_cell, cell, image in zip(student_saw["in"], teacher_saw["in"], gt):
            ((top, left),) = places_of(cell, image)
            assert top in (0, 16) and left in (0, 16)
            own = turned_back(restored(student, turned_cell), how_turned(cell, turned_cell))
            expected["l_up_in"] += (own - restored(teacher, cell)).abs().mean().item() / 2
    if zoom.get("zoom_out", True):
        expected |= {"l_up_out": 0.0, "l_up_out_gt": 0.0}
        assert torch.equal(student_saw["out"], teacher_saw["out"])
        for small, image in zip(student_saw["out"], lq):
            assert halved(image).max() > 1.01 and halved(image).min() < -0.01
            torch.testing.assert_close(small, halved(image).clamp(0, 1), rtol=0, atol=1e-12)
            own = restored(student, small)
            expected["l_up_out"] += (own - restored(teacher, small)).abs().mean().item() / 2
            expected["l_up_out_gt"] += (own - image).abs().mean().item() / 2
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("zoom", ZOOMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_symmetric_form(images, zoom, seed):
    """The sum of |S(x) − A⁻¹(T(A(x)))| for x a crop anywhere, and for x shrunk."""
    lq, gt = images
    losses, student, teacher, student_saw, teacher_saw = run(images, seed, prob=0.5, **zoom)
    if "in" in student_saw:
        assert all(len(places_of(crop, image)) == 1 for crop, image in zip(student_saw["in"], gt))
    if "out" in student_saw:
        shrunk = torch.stack([halved(image).clamp(0, 1) for image in lq])
        torch.testing.assert_close(student_saw["out"], shrunk, rtol=0, atol=1e-12)
    expected = 0.0
    for kind, views in student_saw.items():
        for view, turned_view in zip(views, teacher_saw[kind]):
            target = turned_back(restored(teacher, turned_view), how_turned(view, turned_view))
            expected += (restored(student, view) - target).abs().mean().item() / 2
    assert list(losses) == ["l_up"]
    assert losses["l_up"].item() == pytest.approx(expected, rel=1e-9)


def constant(value, side):
    return torch.full((2, 3, side, side), value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("form", "prob", "expected"),
    [
        ("release", 0.0, {"l_up_in": 0.05, "l_up_out": 0.05, "l_up_out_gt": 0.07}),
        ("release", 1.0, {"l_up_in": 0.13, "l_up_out": 0.05, "l_up_out_gt": 0.07}),
        ("symmetric", 0.0, {"l_up": 0.05 + 0.05}),
        ("symmetric", 1.0, {"l_up": 0.13 + 0.03}),
    ],
)
def test_by_hand_on_images_of_one_value(form, prob, expected):
    """S(x) = x² + 0.3 x + 0.05 and T(x) = S(x) + 0.05, for lq = 0.4 and gt = 0.2; of the operations only 1 − x shows.

    In, plain: 0.05. In, turned: |(1 − S(0.8)) − T(0.2)| = |0.07 − 0.2| and |S(0.2) − (1 − T(0.8))| = |0.15 − 0.02|.
    Out: |S(0.4) − lq| = |0.33 − 0.4|, and turned |S(0.4) − (1 − T(0.6))| = |0.33 − 0.36|.
    """
    losses, *_ = run((constant(0.4, 16), constant(0.2, 32)), form=form, prob=prob)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, rel=1e-6)


def test_some_of_the_views_are_quarter_turns(images):
    """Of these alone the order of the operations, and which side is turned back, can be told."""
    for form in ("release", "symmetric"):
        found = []
        for seed in SEEDS:
            _, _, _, student_saw, teacher_saw = run(images, seed, form=form, prob=0.5)
            plain, views = (teacher_saw, student_saw) if form == "release" else (student_saw, teacher_saw)
            found += [how_turned(one, other) for one, other in zip(plain["in"], views["in"])]
        assert any(transposed and rows != columns for _, rows, columns, transposed in found)


def test_every_cell_of_the_grid_is_drawn_and_crops_lie_anywhere(images):
    cells, crops = set(), set()
    for seed in range(24):
        for form, places in (("release", cells), ("symmetric", crops)):
            _, _, _, student_saw, teacher_saw = run(images, seed, form=form, prob=0.0, zoom_out=False)
            assert torch.equal(student_saw["in"], teacher_saw["in"]), "with probability 0 nothing is turned"
            places |= {places_of(cell, image)[0] for cell, image in zip(student_saw["in"], images[1])}
    assert cells == {(0, 0), (0, 16), (16, 0), (16, 16)}
    assert len(crops) > 30 and max(y for y, _ in crops) > 12 and max(x for _, x in crops) > 12


def test_with_probability_one_all_operations_are_used(images):
    _, _, _, student_saw, teacher_saw = run(images, form="release", prob=1.0)
    for turned_cell, cell in zip(student_saw["in"], teacher_saw["in"]):
        assert torch.equal(turned_cell, turned(cell, [True] * 4))


@pytest.mark.parametrize("form", ["release", "symmetric"])
def test_gradients_reach_the_student_alone(images, form):
    losses, student, teacher, _, _ = run(images, form=form)
    sum(losses.values()).backward()
    assert student.shift.grad.abs() > 0
    assert teacher.shift.grad is None


def test_zooming_in_needs_a_ground_truth(images):
    with pytest.raises(ValueError, match="zoom_in crops the ground truth"):
        run((images[0], None))
