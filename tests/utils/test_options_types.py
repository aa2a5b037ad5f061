import math
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field
from torch import nn
from typing_extensions import TypedDict

from basicsr.utils.options.annotations import read_value
from basicsr.utils.options.sections import Iterations
from basicsr.utils.options.words import describe, shown


class Colour(Enum):
    RED = "red"


class Size(TypedDict):
    width: int


def fits(annotation, value):
    try:
        read_value(annotation, value)
    except ValueError:
        return False
    return True


LIST_OF_SIZES = "a list of sections or lists of 2 strings"


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "words"),
    [
        (int, [0, -3, 2**63 - 1], [2**63, -(10**30), True, 1.0, 1.5, "3", None, [1]], "an integer"),
        (float, [0, 1.5, -2], [math.nan, math.inf, True, "1e-4", None, [1.0]], "a number"),
        (bool, [True, False], [0, 1, "true", None], "true or false"),
        (str, ["", "x"], [3, True, None, ["x"]], "a string"),
        (Path, ["a/b"], [3], "a path"),
        (int | None, [1, None], ["~", 1.5], "an integer or ~"),
        (list[int], [[], [1, 2]], [[1, "2"], [2**64], 3, "12"], "a list of integers"),
        (tuple[float, float], [[0.9, 0.99], [0, 1]], [[0.9], [1, 2, 3], 0.9], "a list of 2 numbers"),
        (tuple[int, str], [[1, "a"]], [["a", 1]], "a list of an integer, a string"),
        (tuple[int, ...], [[], [1]], [[0.5]], "a list of integers"),
        (Sequence[float], [[1, 2.5]], ["ab", {"a": 1}], "a list of numbers"),
        (int | Sequence[int], [3, [3, 4]], ["3", [3.5]], "an integer or a list of integers"),
        (dict[str, float], [{}, {"a": 1}], [{"a": "b"}, [1]], "a section"),
        (Size, [{"width": 1}], [{"width": "1"}, [1]], "a section"),
        (list[Size | tuple[str, str]], [[], [{"width": 1}, ["a", "b"]]], [[["a"]], [3]], LIST_OF_SIZES),
        (Literal["l1", "l2"], ["l1"], ["l3", 1, None], "one of 'l1', 'l2'"),
        (Literal[1, 3], [1, 3], [True, 2, "1", 1.5], "one of 1, 3"),
        (Literal["auto"] | Annotated[int, Field(ge=0)], ["auto", 0], ["gpu", -1], "'auto' or an integer ≥ 0"),
        (Annotated[float, Field(gt=0, le=1)], [0.1, 1], [0, 1.1, -1], "a number > 0 and ≤ 1"),
        (Iterations, [1, 5000.0], [0, 0.5, True, "5e3"], "an integer ≥ 1"),
        (Colour, ["red"], ["blue"], "one of 'red'"),
        (float | torch.Tensor, [1, 0.5], ["x", True], "a number"),
        (tuple[float | torch.Tensor, float | torch.Tensor], [[0.9, 1]], [["a", "b"], [1]], "a list of 2 numbers"),
        (type[nn.Module], [3, "anything goes"], [], "anything"),
        (Callable[[int], int], [3], [], "anything"),
        (torch.Tensor | None, [3, None], [], "anything"),
        (Any, [3, None, [1], {"a": 1}, math.inf, 10**30], [], "anything"),
    ],
)
def test_yaml_values_and_annotations(annotation, good, bad, words):
    assert all(fits(annotation, value) for value in good)
    assert not any(fits(annotation, value) for value in bad)
    assert describe(annotation) == words


def test_values_are_shown_as_in_yaml_and_short():
    assert [shown(v) for v in (None, True, False, 1.5, "a")] == ["~", "true", "false", "1.5", "'a'"]
    assert len(shown(list(range(1000)))) < 60
