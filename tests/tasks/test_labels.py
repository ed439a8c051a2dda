"""Labels: names of schemes that people read, and that tell any two of them apart."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.quantize.schemes import QatInt8, StaticInt8
from tasks.training.recipe import SEEDS
from tasks.types import scheme_label

RATES = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
SHARES = st.floats(0, 1)
SEED = st.integers(0, SEEDS - 1)


def neighbours(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Pairs, many of which differ in their last digits alone."""
    near = values.map(lambda value: (value, value + 1 if isinstance(value, int) else value * (1 + 2**-52)))
    return st.tuples(values, values) | near


@pytest.mark.parametrize(
    ("axis", "values"),
    [("learning_rate", RATES), ("freeze_point", SHARES), ("distillation_weight", SHARES), ("training_seed", SEED)],
)
@given(data=st.data())
def test_distinct_values_have_distinct_labels(axis: str, values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    one, other = data.draw(neighbours(values))
    assume(one != other)
    scheme: Any = QatInt8()
    try:
        schemes = [replace(scheme, **{axis: value}) for value in (one, other)]
    except ValueError:
        assume(False)
    assert len({scheme_label(each) for each in schemes}) == 2


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"training_seed": 20240101}, "-run20240101"),
        ({"training_seed": 20240102}, "-run20240102"),
        ({"learning_rate": 3e-4}, "-lr0.0003"),
        ({"learning_rate": 1e-5}, "-lr1e-05"),
        ({"learning_rate": 0.1 + 0.2}, "-lr0.30000000000000004"),
        ({"distillation_weight": 0.0}, "-distil0"),
    ],
)
def test_numbers_are_as_short_as_they_can_be(axes: dict[str, Any], words: str) -> None:
    assert scheme_label(QatInt8(**axes)).endswith(words)


def test_what_is_at_its_default_is_left_out() -> None:
    assert scheme_label(StaticInt8(calibration_seed=7)) == "static_int8-converter-per_channel-cal64-seed7"
