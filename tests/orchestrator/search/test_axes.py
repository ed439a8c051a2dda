"""Axes: what a space looks like to an optimizer, both ways."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.block import is_installed
from orchestrator.search.axes import Axes
from orchestrator.space import REFERENCE, expand
from tasks.types import Variant

QUANTIZER = {
    "runtime": "litert", "scheme": "static_int8", "toolchain": "litert_quantizer",
    "granularity": ["per_channel", "per_tensor"], "range_estimator": ["min_max", "fixed", "mse"],
    "calibration_images": [64, 8, 32], "calibration_seed": [0, 1], "keep_float": ["none", "most_sensitive_1"],
}  # fmt: skip
BLOCKS: list[dict[str, Any]] = [
    QUANTIZER,
    {"scheme": ["float16", "dynamic_int8", "weight_only_int8"], "transform": ["none", "equalized", "clustered_16"]},
    {"runtime": "litert", "scheme": "static_int8", "input_type": ["float32", "int8"], "calibration_images": [8, 64]},
    {"runtime": "keras", "scheme": ["bfloat16", "float16"]},
]
if is_installed("onnxruntime") and is_installed("onnxscript"):
    BLOCKS += [
        {"runtime": "onnxruntime", "scheme": ["float32", "dynamic_int8"],
         "graph_optimization": ["all", "basic", "none"]},
        {"runtime": "onnxruntime", "scheme": "static_int8", "activation_type": ["uint8", "int8"],
         "granularity": ["per_channel", "per_tensor"]},
    ]  # fmt: skip


def part_of(block: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The block with a part of the values of each of its lists."""
    return st.fixed_dictionaries(
        {
            key: st.lists(st.sampled_from(value), min_size=1, unique=True)
            if isinstance(value, list)
            else st.just(value)
            for key, value in block.items()
        }
    )


spaces = st.tuples(
    st.lists(st.sampled_from(BLOCKS).flatmap(part_of), min_size=1, max_size=4),
    st.sampled_from([[1], [1, 2], [4, 2, 1]]),
).map(lambda asked: expand(*asked)[0].variants)


def space(*blocks: dict[str, Any], threads: tuple[int, ...] = (1,)) -> tuple[Variant, ...]:
    found, broken = expand(list(blocks), list(threads))
    assert not broken
    return found.variants


@settings(deadline=None, max_examples=60)
@given(variants=spaces, is_flat=st.booleans())
def test_a_variant_is_its_parameters_and_they_are_found_one_after_the_other(
    variants: tuple[Variant, ...], is_flat: bool
) -> None:
    axes = Axes(variants, is_flat)
    for variant in variants:
        params = axes.params(variant)
        assert axes.variant(params) == variant
        assert not is_flat or params.keys() == axes.choices.keys()
        chosen: dict[str, Any] = {}
        while (axis := axes.next(chosen)) is not None:
            assert params[axis] in axes.choices[axis]
            chosen[axis] = params[axis]
        assert chosen == params


@settings(deadline=None, max_examples=30)
@given(variants=spaces)
def test_following_the_axes_leads_to_every_variant_once_and_to_nothing_else(variants: tuple[Variant, ...]) -> None:
    axes = Axes(variants)
    ends: list[dict[str, Any]] = [{}]
    found = []
    while ends:
        chosen = ends.pop()
        axis = axes.next(chosen)
        if axis is None:
            found.append(axes.variant(chosen))
            continue
        taken = {axes.params(v)[axis] for v in variants if chosen.items() <= axes.params(v).items()}
        ends += [{**chosen, axis: value} for value in taken]
    assert len(found) == len(variants)
    assert set(found) == set(variants)


def test_axes_of_one_value_are_left_out_and_the_most_important_come_first() -> None:
    axes = Axes(space({"scheme": ["float16", "dynamic_int8"]}, QUANTIZER, threads=(2, 1)))
    assert list(axes.choices)[:3] == ["scheme", "toolchain", "threads"]
    assert "runtime" not in axes.choices
    assert "symmetry" not in axes.choices


def test_numbers_are_in_order_and_words_in_that_of_the_spec() -> None:
    axes = Axes(space(QUANTIZER))
    assert axes.choices["calibration_images"] == (8, 32, 64)
    assert axes.choices["range_estimator"] == ("min_max", "fixed", "mse")


def test_an_axis_that_does_not_exist_is_not_asked_for_or_none() -> None:
    variants = space(QUANTIZER)
    fixed = next(v for v in variants if v.scheme.axes().get("range_estimator") == "fixed")
    assert "calibration_images" not in Axes(variants).params(fixed)
    flat = Axes(variants, is_flat=True)
    assert flat.params(fixed)["calibration_images"] is None
    assert flat.choices["calibration_images"] == (None, 8, 32, 64)
    assert None not in flat.choices["scheme"]


def test_values_that_belong_to_no_variant_lead_nowhere() -> None:
    axes = Axes(space(QUANTIZER))
    assert axes.variant({"scheme": "static_int8"}) is None
    assert axes.next({"scheme": "no such scheme"}) is None


def test_a_space_without_a_choice_has_no_axes() -> None:
    axes = Axes([REFERENCE])
    assert axes.choices == {}
    assert axes.next({}) is None
    assert axes.variant({}) == REFERENCE


@pytest.mark.parametrize("variants", [(), (REFERENCE, REFERENCE)])
def test_a_space_has_variants_that_differ(variants: tuple[Variant, ...]) -> None:
    with pytest.raises(ValueError, match=r"no variant to search|same axes"):
        Axes(variants)
