"""The table in the start-up log, and what each term says of itself in it."""

import pytest
import torch
from torch import nn

from basicsr.distill.frozen import FrozenNetwork
from basicsr.distill.student import StudentNetwork
from basicsr.distill.term import KDTerm
from basicsr.distill.wiring import wiring_report
from basicsr.engine.compute.runtime import NetworkRuntime
from basicsr.utils.options.sections import Schedule

from .helpers import build


class Wired(KDTerm):
    """Says what it is told to say."""

    def __init__(self, *rows, trained=0, fixed=0, weight=1.0):
        super().__init__()
        self.rows = list(rows)
        self.trained = nn.Parameter(torch.zeros(trained))
        self.fixed = nn.Parameter(torch.zeros(fixed), requires_grad=False)
        self.schedule = Schedule.of({"loss_weight": weight})

    def wiring(self):
        return self.rows


def report(terms, frozen=(), **path):
    student = StudentNetwork(nn.Conv2d(3, 8, 3), NetworkRuntime("bf16"))
    return wiring_report(student, dict(frozen), terms, {"path": path})


def test_networks():
    teacher = FrozenNetwork(nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3)), "t", weights="teacher.pth")
    frozen = {"t": teacher, "vgg": FrozenNetwork(nn.Conv2d(3, 1, 1), "vgg", weights="RANDOM")}
    files = {"pretrain_network_g": "student.pth", "pretrain_network_t": "teacher.pth"}
    assert report({}, frozen, **files).splitlines() == [
        "Distillation",
        "  network      type        parameters  role              precision  weights",
        "  network_g    Conv2d      224         student, trained  bf16       student.pth",
        "  network_t    Sequential  38,720      frozen            fp32       teacher.pth",
        "  network_vgg  Conv2d      4           frozen            fp32       RANDOM",
    ]


def test_a_student_without_weights_starts_from_scratch():
    assert report({}).splitlines()[2].split()[-2:] == ["from", "scratch"]


def test_terms():
    """A term's rows follow each other, and its trained parameters stand in the first; fixed ones are not among them."""
    row = {"student": "body.1", "student_shape": (1, 4, 8, 8), "network": "t", "module": "body.3"}
    row |= {"module_shape": (1, 16, 64), "adapter": "Conv2d"}
    terms = {
        "feat": Wired(row, {**row, "student": "down", "adapter": "–"}, trained=1234, fixed=9, weight=0.05),
        "plain": Wired(),
        "part": Wired({"student": "output"}, weight=1e-6),
    }
    assert report(terms).split("\n\n")[1].splitlines() == [
        "  term   weight  student  shape       network  module  shape    adapter  trained",
        "  feat   0.05    body.1   1×4×8×8  ↔  t        body.3  1×16×64  Conv2d   1,234",
        "  feat   0.05    down     1×4×8×8  ↔  t        body.3  1×16×64  –",
        "  plain  1       –        –        ↔  –        –       –        –        0",
        "  part   1e-06   output   –        ↔  –        –       –        –        0",
    ]


def test_a_term_says_nothing_unless_it_is_written():
    assert KDTerm().wiring() == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "LogitsKD"}, ("output", (1, 3, 32, 32), "t", "output", (1, 3, 32, 32), "–")),
        ({"type": "LogitsKD", "teacher": "g_ema"}, ("output", (1, 3, 32, 32), "g_ema", "output", (1, 3, 32, 32), "–")),
        ({"type": "DCR"}, ("output", (1, 3, 32, 32), "t", "output", (1, 3, 32, 32), "–")),
        ({"type": "DMM"}, ("output", (1, 6, 2, 2), "vqgan", "latent", (1, 6, 2, 2), "–")),
        (
            {"type": "FitNets", "pairs": [["up", "up"]]},
            ("up", (1, 3, 32, 32), "t", "up", (1, 3, 32, 32), "–"),
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_the_rows_of_a_term(options, expected):
    """A run ×2 with patches of 16×16, and an encoder with strides of up to 16."""
    (row,) = build({"x": options}).terms["x"].wiring()
    keys = ("student", "student_shape", "network", "module", "module_shape", "adapter")
    assert row == dict(zip(keys, expected))


def test_it_is_logged_once_all_stands(log):
    build({"kd": {"type": "LogitsKD", "loss_weight": 0.25}})
    (text,) = [message for message in log.messages if message.startswith("Distillation\n")]
    assert "  network_t  Doubler  1           frozen " in text
    assert "network_vqgan" not in text, "nothing uses it"
    assert " ".join(text.splitlines()[-1].split()) == "kd 0.25 output 1×3×32×32 ↔ t output 1×3×32×32 – 0"
