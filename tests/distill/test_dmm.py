"""DMM against the definition, position by position in float64."""

import pytest
import torch

from basicsr.distill import dmm
from basicsr.distill.dmm import category_cross_entropy

from .helpers import distil, network, small_batch, take_step


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
def test_value(temperature, student_side):
    batch = small_batch()
    distillation = distil({"ce": {"type": "DMM", "temperature": temperature, "student_side": student_side}})
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    encoder, teacher = network(distillation, "vqgan"), network(distillation, "t")
    with torch.no_grad():
        latents = [
            encoder.to_latent(encoder.features(image)[-1]) for image in (batch.output.detach(), teacher(batch.lq))
        ]
        expected = cross_entropy_by_definition(*latents, encoder.codes, temperature, student_side == "release")
    assert losses["l_ce"].item() == pytest.approx(expected, rel=1e-9)


def test_gradient_reaches_the_student_alone():
    batch = small_batch()
    distillation = distil({"ce": {"type": "DMM"}})
    _, losses = take_step(distillation, batch.lq, output=batch.output)
    losses["l_ce"].backward()
    assert batch.output.grad.abs().sum() > 0
    assert all(p.grad is None for name in ("vqgan", "t") for p in network(distillation, name).parameters())


def test_gradient_and_chunks(monkeypatch):
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


def test_float32_with_far_latents():
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
