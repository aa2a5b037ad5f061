"""DCR, DMM and LCR against plain re-derivations in float64, with a small encoder made here."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from basicsr.distill import build_term, dmm
from basicsr.distill.augmentation import InvertibleAugmentation
from basicsr.distill.context import KDContext, Pass
from basicsr.distill.dcr import contrast
from basicsr.distill.dmm import category_cross_entropy
from basicsr.distill.encoders import Encoding
from basicsr.distill.frozen import FrozenNetwork

WEIGHTS = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0]


class Encoder(nn.Module):
    """Five levels at strides 1, 2, 4, 8, 16, and a latent; it counts the images it is given."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=1 if i == 0 else 2, padding=1) for i in range(5)
        )
        self.to_latent = nn.Conv2d(4, 6, 1)
        self.codebook = nn.Parameter(torch.randn(10, 6))
        self.passes = []

    def features(self, x):
        self.passes.append((len(x), torch.is_grad_enabled()))
        levels = []
        for conv in self.convs:
            x = torch.tanh(conv(x))
            levels.append(x)
        return levels

    def latent_from_features(self, levels):
        return self.to_latent(levels[-1])


class Doubler(nn.Module):
    """A teacher ×2: nearest neighbours of a nonlinear function; it counts the images it is given."""

    def __init__(self, shift=0.1):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))
        self.passes = []

    def forward(self, x):
        self.passes.append(len(x))
        return F.interpolate(x**2 + self.shift, scale_factor=2.0)


@pytest.fixture
def setting():
    """A batch of two, a teacher and an encoder in float64."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        encoder, teacher = Encoder(), Doubler()
    finally:
        torch.set_default_dtype(torch.float32)
    frozen = {"vqgan": FrozenNetwork(encoder, "vqgan"), "t": FrozenNetwork(teacher, "t")}
    lq = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    output = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    return frozen, KDContext(1, lq, None, Pass(output), frozen), encoder, teacher


def make_term(name, **options):
    term = build_term(name, options)
    if options["type"] == "DCR":
        torch.manual_seed(1)
        term.history = Doubler(shift=-0.2).double()
    return term


def run(terms, ctx):
    for term in terms:
        term.prepare(ctx)
    return [term(ctx) for term in terms]


def levels_of(encoder, image):
    with torch.no_grad():
        return encoder.features(image)


@pytest.mark.parametrize("input_range", ["[0,1]", "[-1,1]"])
def test_dcr_value(setting, input_range):
    frozen, ctx, encoder, teacher = setting
    term = make_term("cl", type="DCR", input_range=input_range, num_neg=3)
    torch.manual_seed(5)
    (value,) = run([term], ctx)
    torch.manual_seed(5)
    negatives = [ctx.lq] + [term.degrade(ctx.lq) for _ in range(3)]

    def see(image):
        return levels_of(encoder, 2 * image - 1 if input_range == "[-1,1]" else image)

    expected = 0.0
    anchor, positive = see(ctx.output.detach()), see(teacher(ctx.lq).detach())
    others = [see(term.history(n).detach()) for n in negatives]
    for i, weight in enumerate(WEIGHTS):
        near = (anchor[i] - positive[i]).abs().mean().item()
        far = sum((anchor[i] - other[i]).abs().mean().item() for other in others)
        expected += weight * near / (far + 1e-7)
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", ["L1", "L2"])
def test_contrast_by_hand(distance):
    """One level; the anchor is 1 or 2 away from the positive, and 4 and 3 from the two negatives."""
    anchor = Encoding([torch.zeros(1, 1, 1, 2, dtype=torch.float64)])
    positive = Encoding([torch.tensor([1.0, 2.0], dtype=torch.float64).view(1, 1, 1, 2)])
    negatives = Encoding([torch.tensor([4.0, -4.0, 3.0, 3.0], dtype=torch.float64).view(2, 1, 1, 2)])
    expected = {"L1": 0.5 * 1.5 / (4 + 3 + 1e-7), "L2": 0.5 * 2.5 / (16 + 9 + 1e-7)}[distance]
    assert contrast(anchor, positive, negatives, [0.5], distance).item() == pytest.approx(expected, rel=1e-12)


def test_contrast_is_finite_where_everything_is_equal():
    same = Encoding([torch.ones(1, 2, 3, 3, requires_grad=True)])
    value = contrast(same, same, Encoding([torch.ones(2, 2, 3, 3)]), [1.0], "L1")
    value.backward()
    assert value.item() == 0
    assert same.levels[0].grad.isfinite().all()


def test_dcr_gradient_reaches_the_student_alone(setting):
    frozen, ctx, encoder, teacher = setting
    term = make_term("cl", type="DCR", num_neg=1)
    (value,) = run([term], ctx)
    value.backward()
    assert ctx.output.grad.abs().sum() > 0
    for module in (encoder, teacher):
        assert all(p.grad is None for p in module.parameters())
    anchor = torch.rand(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    fixed = [Encoding([torch.rand(n, 2, 3, 3, dtype=torch.float64)]) for n in (1, 2)]
    assert torch.autograd.gradcheck(lambda a: contrast(Encoding([a]), *fixed, [0.7], "L1"), [anchor])


def cross_entropy_by_definition(student, teacher, codebook, temperature, release):
    """Eq. 7-9 position by position, with the whole distance ‖F − e‖²."""
    total, count = 0.0, 0
    for b in range(len(student)):
        for y in range(student.shape[2]):
            for x in range(student.shape[3]):
                c_s, c_t = (
                    torch.softmax(-((f[b, :, y, x] - codebook) ** 2).sum(1) / temperature, 0)
                    for f in (student, teacher)
                )
                log_s = torch.log_softmax(c_s, 0) if release else c_s.log()
                total -= (c_t * log_s).sum().item()
                count += 1
    return total / count


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("student_side", ["log_softmax_of_distance", "release"])
def test_dmm_value(setting, temperature, student_side):
    frozen, ctx, encoder, teacher = setting
    term = make_term("ce", type="DMM", temperature=temperature, student_side=student_side)
    term.codebook = [encoder.codebook]
    (value,) = run([term], ctx)
    latents = [
        encoder.latent_from_features(levels_of(encoder, i)).detach() for i in (ctx.output.detach(), teacher(ctx.lq))
    ]
    expected = cross_entropy_by_definition(*latents, encoder.codebook.detach(), temperature, student_side == "release")
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_dmm_gradient_and_chunks(monkeypatch):
    torch.manual_seed(0)
    student = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    teacher, codes = torch.randn(2, 3, 2, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)

    def value(s):
        return category_cross_entropy(s, teacher, codes, 1.0, "log_softmax_of_distance")

    assert torch.autograd.gradcheck(value, [student])
    whole = value(student)
    (whole_gradient,) = torch.autograd.grad(whole, student)
    monkeypatch.setattr(dmm, "CHUNK", 5)
    chunked = value(student)
    (gradient,) = torch.autograd.grad(chunked, student)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, whole_gradient, rtol=1e-12, atol=1e-15)


def test_dmm_in_float32_with_far_latents():
    """Large distances must not cancel: the float32 value stays close to the float64 one."""
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 8, 3, 3) * 20, torch.randn(1, 8, 3, 3) * 20
    codes = torch.randn(16, 8)
    single = category_cross_entropy(student, teacher, codes, 1.0, "log_softmax_of_distance")
    double = category_cross_entropy(student.double(), teacher.double(), codes.double(), 1.0, "log_softmax_of_distance")
    assert single.item() == pytest.approx(double.item(), rel=1e-5)


def test_the_paper_s_side_teaches_and_the_release_s_hardly():
    torch.manual_seed(0)
    teacher, codes = torch.randn(1, 8, 2, 2), torch.randn(1024, 8)
    norms = {}
    for side in ("log_softmax_of_distance", "release"):
        student = torch.randn(1, 8, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        category_cross_entropy(student, teacher, codes, 1.0, side).backward()
        norms[side] = student.grad.norm().item()
    assert norms["release"] < 0.1 * norms["log_softmax_of_distance"]


@pytest.mark.parametrize("index", range(16))
def test_augmentation_is_undone(index):
    chosen = torch.tensor([[bool(index >> k & 1), True] for k in range(4)])
    augmentation = InvertibleAugmentation(chosen)
    x = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(augmentation.undo(augmentation.apply(x)), x)


def test_augmentation_by_hand():
    """All four on [[0, .1], [.2, .3]]: invert → flip rows → flip columns → transpose."""
    x = torch.tensor([[0.0, 0.1], [0.2, 0.3]]).view(1, 1, 2, 2)
    out = InvertibleAugmentation(torch.ones(4, 1, dtype=torch.bool)).apply(x)
    torch.testing.assert_close(out.view(2, 2), torch.tensor([[0.7, 0.9], [0.8, 1.0]]))


def test_lcr_value_and_one_teacher_pass(setting):
    frozen, ctx, encoder, teacher = setting
    terms = [make_term("ts", type="LogitsKD"), make_term("lcr", type="LCR", prob=0.5)]
    torch.manual_seed(2)
    _, value = run(terms, ctx)
    assert teacher.passes == [4], "the input and its view in one pass"
    torch.manual_seed(2)
    chosen = torch.rand(4, 2) < 0.5
    expected = 0.0
    for b in range(2):
        view = ctx.lq[b : b + 1]
        steps = [lambda v: 1 - v, lambda v: v.flip(2), lambda v: v.flip(3), lambda v: v.transpose(2, 3)]
        used = [step for step, yes in zip(steps, chosen[:, b]) if yes]
        for step in used:
            view = step(view)
        out = teacher(view).detach()
        for step in used[::-1]:
            out = step(out)
        expected += (ctx.output[b : b + 1].detach() - out).abs().mean().item() / 2
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_lcr_refuses_oblong_patches(setting):
    frozen = setting[0]
    ctx = KDContext(1, torch.rand(1, 3, 4, 6), None, Pass(torch.rand(1, 3, 8, 12)), frozen)
    with pytest.raises(ValueError, match=r"must be square; they are \(4, 6\)"):
        make_term("lcr", type="LCR").prepare(ctx)


def test_everything_costly_is_shared(setting):
    """All DCKD terms together: one teacher pass, one encoder pass with gradients, one without."""
    frozen, ctx, encoder, teacher = setting
    terms = [
        make_term("ts", type="LogitsKD"),
        make_term("lcr", type="LCR"),
        make_term("cl", type="DCR", num_neg=4),
        make_term("ce", type="DMM"),
    ]
    terms[3].codebook = [encoder.codebook]
    run(terms, ctx)
    assert teacher.passes == [4]
    assert terms[2].history.passes == [10]
    assert sorted(encoder.passes) == [(2, True), (12, False)]


@pytest.mark.parametrize(
    ("iteration", "updates"), [(1000, True), (999, False), (100_000, True), (101_000, False), (102_000, True)]
)
def test_history_update(iteration, updates):
    term = make_term("cl", type="DCR", step=[1000, 2000], update_decay=0.1)
    source = Doubler(shift=0.8).double()

    class Model:
        net_g_ema = source

    term.after_step(Model(), iteration)
    expected = 0.1 * -0.2 + 0.9 * 0.8 if updates else -0.2
    assert term.history.shift.item() == pytest.approx(expected)


def test_history_is_in_the_state_and_trains_nothing():
    term = make_term("cl", type="DCR")
    term.history.requires_grad_(False).eval()
    term.train()
    assert not term.history.training
    assert list(term.state_dict()) == ["history.shift"]
    assert not any(p.requires_grad for p in term.parameters())


def test_the_last_step_holds_on():
    term = make_term("cl", type="DCR", step=[10, 7])
    source = Doubler(shift=0.8).double()
    for iteration, updates in ((950_010, False), (950_012, True)):  # 950,012 = 7 · 135,716
        before = term.history.shift.item()
        term.after_step(type("Model", (), {"net_g_ema": source})(), iteration)
        assert (term.history.shift.item() != before) == updates


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "DCR", "step": []}, "step a list of positive"),
        ({"type": "DCR", "step": [0]}, "step a list of positive"),
        ({"type": "DMM", "temperature": 0.0}, "temperature must be above 0"),
        ({"type": "DCR", "gaussian_noise_prob": 5}, "gaussian_noise_prob must be between 0 and 1, not 5"),
        ({"type": "DCR", "update_decay": 5}, "update_decay must be between 0 and 1, not 5"),
        ({"type": "LCR", "prob": -0.1}, "prob must be between 0 and 1, not -0.1"),
        ({"type": "DUKD", "prob": 2}, "prob must be between 0 and 1, not 2"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        build_term("x", options)


class Student:
    """Counts and records what it is run on."""

    def __init__(self):
        self.inputs = []

    def __call__(self, x):
        self.inputs.append(x)
        return F.interpolate(x, scale_factor=2.0) * 0.9


@pytest.mark.parametrize("zoom", [{"zoom_out": False}, {"zoom_in": False}, {}])
def test_dukd_value(setting, zoom):
    """On crops of the ground truth and on shrunk inputs, against a loop over images."""
    frozen, ctx, encoder, teacher = setting
    student = Student()
    gt = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    ctx = KDContext(1, ctx.lq, gt, Pass(ctx.output), frozen, run_student=student)
    term = make_term("up", type="DUKD", prob=0.5, **zoom)
    (value,) = run([term], ctx)
    expected = 0.0
    for (key, augmentation), image in zip(term._augmentations.items(), student.inputs):
        assert image.shape[-1] == {"in": 16, "out": 8}[key]
        for b in range(2):
            steps = [lambda v: 1 - v, lambda v: v.flip(2), lambda v: v.flip(3), lambda v: v.transpose(2, 3)]
            used = [step for step, yes in zip(steps, augmentation.chosen[:, b]) if yes]
            view = image[b : b + 1]
            for step in used:
                view = step(view)
            out = teacher(view).detach()
            for step in used[::-1]:
                out = step(out)
            expected += (Student()(image[b : b + 1]) - out).abs().mean().item() / 2
    assert value.item() == pytest.approx(expected, rel=1e-9)
    if "in" in term._inputs:
        crop = term._inputs["in"][0]
        places = [(y, x) for y in range(17) for x in range(17) if torch.equal(gt[0, :, y : y + 16, x : x + 16], crop)]
        assert len(places) == 1, "a crop of the ground truth"


def test_dukd_without_ground_truth(setting):
    with pytest.raises(ValueError, match="zoom_in crops the ground truth"):
        make_term("up", type="DUKD").prepare(setting[1])
    with pytest.raises(ValueError, match="both false"):
        build_term("up", {"type": "DUKD", "zoom_in": False, "zoom_out": False})


def test_images_encoded_a_few_at_a_time_give_the_same(setting, monkeypatch):
    """What the CPU does with many images."""
    frozen, ctx, encoder, teacher = setting
    values = []
    for portion in (100, 5):
        monkeypatch.setattr("basicsr.engine.runtime.CPU_BATCH", portion)
        encoder.passes.clear()
        torch.manual_seed(4)
        terms = [make_term("cl", type="DCR", num_neg=4), make_term("ce", type="DMM")]
        terms[1].codebook = [encoder.codebook]
        torch.manual_seed(5)
        values.append(run(terms, KDContext(1, ctx.lq, None, Pass(ctx.output), frozen)))
    assert sorted(encoder.passes) == [(2, False), (2, True), (5, False), (5, False)]
    assert terms[0].history.passes == [5, 5]
    for one, other in zip(*values):
        assert one.item() == pytest.approx(other.item(), rel=1e-12)


def test_a_step_leaves_nothing_behind(setting):
    """What terms and encodings hold is freed with the context, without waiting for the cyclic garbage collector."""
    frozen, ctx, encoder, teacher = setting
    terms = [make_term("ts", type="LogitsKD"), make_term("lcr", type="LCR"), make_term("cl", type="DCR", num_neg=1)]
    gc.collect()
    gc.disable()
    try:
        own = KDContext(1, ctx.lq, None, Pass(ctx.output), frozen)
        run(terms, own)
        reference = weakref.ref(own)
        del own
        assert reference() is None
    finally:
        gc.enable()
