"""Checkpoints that hold objects of libraries that are not installed."""

import sys
import types
from collections import OrderedDict

import pytest
import torch

from basicsr.utils.weights import extract_state_dict, load_file

SOURCE = '''
import enum
from collections import OrderedDict


class AttributeDict(dict):
    """As in Lightning."""

    def __getattr__(self, key):
        return self[key]


class Ordered(OrderedDict):
    pass


class Items(list):
    pass


class Choice(enum.Enum):
    ONE = 1


class Plain:
    def __init__(self, **values):
        self.__dict__.update(values)
'''


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Saves a Lightning checkpoint whose hyper-parameters a function makes of the library, which is then removed."""

    def save(make, name="last.ckpt"):
        library = types.ModuleType("a_library")
        library.__dict__["__name__"] = "a_library"
        monkeypatch.setitem(sys.modules, "a_library", library)
        exec(SOURCE, library.__dict__)
        parameters = make(library)
        torch.save({"state_dict": {"w": torch.ones(2)}, "hyper_parameters": parameters}, tmp_path / name)
        monkeypatch.delitem(sys.modules, "a_library")
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    "make",
    [
        lambda library: library.AttributeDict(lr=1e-3, betas=[0.9, 0.99]),
        lambda library: library.AttributeDict(a=library.AttributeDict(b=library.AttributeDict()), c=1),
        lambda library: library.Ordered(lr=1e-3),
        lambda library: library.Items([1, library.AttributeDict(a=1)]),
        lambda library: {library.Choice.ONE: library.Plain(x=library.Items([3]))},
        lambda library: library.Plain(a=library.Ordered(b=library.Plain()), c=library.Choice.ONE),
    ],
)
def test_hyper_parameters_do_not_hinder(saved, make):
    checkpoint = load_file(saved(make))
    assert extract_state_dict(checkpoint)["w"].tolist() == [1, 1]


def test_what_becomes_of_them(saved):
    def make(library):
        with_state = library.Ordered(a=1)
        with_state.note = "x"
        return library.AttributeDict(lr=1e-3, more=with_state, items=library.Items([1, 2]))

    found = load_file(saved(make))["hyper_parameters"]
    assert type(found) is OrderedDict and found["lr"] == 1e-3
    assert found["more"] == {"a": 1} and found["items"] == [1, 2]


def test_what_cannot_be_replaced_is_refused_with_the_reason(saved):
    def with_state(library):
        items = library.Items([1])
        items.note = "x"
        return items

    with pytest.raises(
        ValueError, match=r"last\.ckpt is refused: it holds pickled objects .*<class 'list'>.* Save its"
    ):
        load_file(saved(with_state))
    with pytest.raises(ValueError, match=r"net\.pth is refused: it holds the pickled object a_library\.AttributeDict"):
        load_file(saved(lambda library: library.AttributeDict(a=1), "net.pth"))


def test_damage_is_still_called_damage(saved):
    path = saved(lambda library: library.AttributeDict(a=1))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged or not a checkpoint"):
        load_file(path)
