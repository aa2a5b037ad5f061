"""How other spellings are translated, and how a recipe of one's own has a dialect."""

import copy

import pytest

from basicsr.models.sr_model import SRModel
from basicsr.utils.options import sections
from basicsr.utils.options.errors import Marks, OptionError
from basicsr.utils.options.reading import translate_dialects
from basicsr.utils.options.translation import Translation
from basicsr.utils.options.yaml_text import read_yaml
from basicsr.utils.registry import MODEL_REGISTRY

TEXT = """\
old: {size: 3, deep: {width: 4}}
train:
  a_opt:
    weight: 1
    list: [5, 6]
  rate: 2
"""


@pytest.fixture
def words():
    opt, marks = read_yaml(TEXT, "x.yml")
    return Translation(opt, marks)


def test_what_is_translated_is_known_by_what_was_written(words):
    words.rename(("old",), ("new",))
    section = words.take(("train", "a_opt"))
    rate = words.take(("train", "rate"))
    term = {"type": "A", "weight": section["weight"], "list": section["list"], "speed": rate}
    words.put(("train", "kd_opt", "a"), term, ("train", "a_opt"), {"speed": ("train", "rate")})
    assert words.result() == {"new": {"size": 3, "deep": {"width": 4}}, "train": {"kd_opt": {"a": term}}}
    label = words.marks.label
    assert label(("new",)) == "old (x.yml:1)"
    assert label(("new", "deep", "width")) == "old.deep.width (x.yml:1)"
    assert label(("train", "kd_opt", "a")) == "train.a_opt (x.yml:3)"
    assert label(("train", "kd_opt", "a", "weight")) == "train.a_opt.weight (x.yml:4)"
    assert label(("train", "kd_opt", "a", "list", 1)) == "train.a_opt.list.1 (x.yml:5)"
    assert label(("train", "kd_opt", "a", "speed")) == "train.rate (x.yml:6)"
    assert label(("train", "kd_opt", "a", "type")) == "train.a_opt (x.yml:3)", "it was written nowhere"
    assert label(("train", "kd_opt")) == "train.kd_opt (x.yml:2)"


def test_a_second_translation_goes_back_to_what_was_written(words):
    words.rename(("old",), ("newer",))
    again = Translation(words.result(), words.marks)
    again.rename(("newer",), ("newest",))
    assert again.marks.label(("newest", "size")) == "old.size (x.yml:1)"


def test_the_order_of_keys_is_kept(words):
    words.rename(("old",), ("new",))
    assert list(words.result()) == ["new", "train"]


def test_what_is_given_in_both_spellings_is_a_problem(words):
    words.put(("train", "rate"), 1, ("old", "size"))
    words.rename(("old",), ("train",))
    with pytest.raises(OptionError) as caught:
        words.result()
    assert caught.value.problems == [
        "old.size (x.yml:1): is read as train.rate, and train.rate (x.yml:6) is given as well; remove one of them",
        "old (x.yml:1): is read as train, and train (x.yml:2) is given as well; remove one of them",
    ]
    assert words.opt["train"]["rate"] == 2
    assert "old" not in words.opt


def test_what_is_absent_is_none_and_what_is_no_section_is_left_to_the_check():
    opt = {"train": {"kd_opt": []}, "path": None}
    words = Translation(opt)
    assert words.take(("train", "x")) is None
    assert words.take(("path", "x")) is None
    assert not words.has(("nowhere", "x"))
    words.put(("train", "kd_opt", "a"), 1, ("x",))
    words.put(("path", "a"), 1, ("x",))
    assert words.result() == {"train": {"kd_opt": []}, "path": {"a": 1}}
    assert opt == {"train": {"kd_opt": []}, "path": None}


def test_a_copy_of_marks_knows_what_was_written():
    marks = Marks({("a",): "x.yml:1"})
    marks.carry(("b",), ("a",))
    assert copy.copy(marks).label(("b", "c")) == "a (x.yml:1)"


class PaperModel(SRModel):
    """The recipe of docs/options.md."""

    TrainOptions = SRModel.TrainOptions

    class DialectOptions(sections.Section):
        lambda_pix: float | None = None

    @staticmethod
    def translate(opt, marks=None):
        words = Translation(opt, marks)
        weight = words.take(("train", "lambda_pix"))
        if weight is not None:
            words.put(("train", "pixel_opt"), {"type": "L1Loss", "loss_weight": weight}, source=("train", "lambda_pix"))
        return words.result()


def test_a_recipe_of_ones_own_has_a_dialect(monkeypatch):
    monkeypatch.setattr(MODEL_REGISTRY, "_objects", dict(iter(MODEL_REGISTRY)) | {"PaperModel": PaperModel})
    opt, marks = read_yaml("model_type: PaperModel\ntrain:\n  lambda_pix: 0.5\n", "x.yml")
    translated, notices, problems = translate_dialects(opt, marks)
    assert translated["train"] == {"pixel_opt": {"type": "L1Loss", "loss_weight": 0.5}}
    assert (notices, problems) == ([], [])
    opt["train"]["lambda_pix"] = "0.5"
    assert translate_dialects(opt, marks) == (opt, [], []), "the check says what is wrong with it"
    opt, marks = read_yaml("model_type: PaperModel\ntrain:\n  lambda_pix: 1\n  pixel_opt: ~\n", "x.yml")
    assert translate_dialects(opt, marks)[2] == [
        "train.lambda_pix (x.yml:3): is read as train.pixel_opt, and train.pixel_opt (x.yml:4) is given as well; "
        "remove one of them"
    ]


@pytest.mark.parametrize("model_type", ["NoSuchModel", 3, ["KDModel"], None])
def test_an_unknown_recipe_is_left_to_the_check(model_type):
    opt = {"model_type": model_type, "network_g_teacher": {}}
    assert translate_dialects(opt, Marks()) == (opt, [], [])
