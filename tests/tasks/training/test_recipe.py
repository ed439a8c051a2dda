"""Recipes: what a training may be told."""

import math
from dataclasses import fields

import pytest

from tasks.training.recipe import MOST_BATCH_IMAGES, MOST_EPOCHS, SEEDS, Recipe

GOOD = {"epochs": 2, "learning_rate": 1e-3}
NUMBERS = [item.name for item in fields(Recipe) if item.type is float]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_every_number_is_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be a finite number$"):
        Recipe(**GOOD | {name: value})


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("epochs", 0, MOST_EPOCHS), ("batch_size", 1, MOST_BATCH_IMAGES), ("seed", 0, SEEDS - 1)],
)
def test_whole_numbers_are_no_larger_than_databases_and_frameworks_hold(name: str, least: int, most: int) -> None:
    for value in (least, most):
        Recipe(**GOOD | {name: value})
    for value in (least - 1, most + 1, 10**30):
        with pytest.raises(ValueError, match=f"^{name} is {value}; it must be at least {least} and "):
            Recipe(**GOOD | {name: value})
