import pytest
import torch
from torch import nn

from basicsr.distill.adapters import adapt, build_adapter


@pytest.mark.parametrize(
    ("kind", "is_map", "width", "same_width", "expected"),
    [
        ("auto", True, 8, True, nn.Identity),
        ("auto", True, 6, True, nn.Conv2d),
        ("auto", False, 6, True, nn.Linear),
        ("auto", True, 6, False, nn.Identity),
        ("conv", True, 8, True, nn.Conv2d),
        ("conv", True, 6, False, nn.Conv2d),
        ("linear", False, 8, True, nn.Linear),
        ("none", True, 8, True, nn.Identity),
        ("none", True, 6, False, nn.Identity),
        ("raw", False, 6, True, nn.Identity),
    ],
)
def test_adapter_choice(kind, is_map, width, same_width, expected):
    adapter = build_adapter(kind, is_map, 8, width, same_width)
    assert type(adapter) is expected
    if expected is not nn.Identity:
        assert adapter.weight.shape[:2] == (width, 8)


@pytest.mark.parametrize(
    ("kind", "is_map", "message"),
    [
        ("none", True, "adapter: none, but the student's feature has 8 channels and the teacher's 6"),
        ("linear", True, "adapter: linear does not fit a map"),
        ("conv", False, "adapter: conv does not fit tokens"),
    ],
)
def test_adapter_refusals(kind, is_map, message):
    with pytest.raises(ValueError, match=message):
        build_adapter(kind, is_map, 8, 6)


def test_an_adapter_of_tokens_acts_on_them_alike_when_they_are_a_map():
    torch.manual_seed(0)
    adapter = nn.Linear(3, 5)
    tokens = torch.randn(2, 6, 3)
    image = tokens.transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(adapt(adapter, image).flatten(2).transpose(1, 2), adapt(adapter, tokens))
