"""Ranges follow from statistics, or from the graph alone; tensors of one scale have one range."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.errors import QuantizationFailed
from tasks.quantize.estimators import Grid, estimator_of
from tasks.quantize.flatbuffer import operator_name, read, text
from tasks.quantize.observe import activations, image_statistics
from tasks.quantize.ranges import LINEAR_RANGE, Ranges, ranges_for
from tasks.quantize.schemes import Scheme, StaticInt4, StaticInt8, StaticInt8x16
from tasks.quantize.statistics import Statistics

BOXES = "PartitionedCall:0"
STATISTICAL = ("min_max", "moving_average", "percentile_99_9", "mse", "entropy")

Sources = Callable[..., bytes]
Gathered = Callable[..., Statistics]


def static(estimator: str, **axes: Any) -> StaticInt8:
    return StaticInt8(toolchain="litert_quantizer", range_estimator=estimator, **axes)


def fixed(model: bytes) -> Ranges:
    return ranges_for(static("fixed"), model, None)


def made_by(model: bytes, operator: str) -> list[str]:
    """Names of the tensors that operators of a kind make."""
    tree = read(model)
    found = [item for item in tree.subgraphs[0].operators if operator_name(tree, item) == operator]
    return [text(tree.subgraphs[0].tensors[item.outputs[0]].name) for item in found]


@pytest.mark.parametrize("name", STATISTICAL)
def test_every_activation_has_a_range(source: Sources, statistics: Gathered, name: str) -> None:
    ranges = ranges_for(static(name), source(), statistics(4))
    assert list(ranges) == list(activations(read(source())))
    assert all(low < high for low, high in ranges.values())


def test_min_max_ranges_are_the_least_and_greatest_values(source: Sources, statistics: Gathered) -> None:
    ranges = ranges_for(static("min_max"), source(), statistics(4))
    convolutions = [name for name in made_by(source(), "CONV_2D") if "BoxPredictor" not in name]
    for name in [*convolutions, *made_by(source(), "DEPTHWISE_CONV_2D"), *made_by(source(), "LOGISTIC"), BOXES]:
        tensor = statistics(4).tensor(name)
        assert ranges[name] == (tensor.low, tensor.high)


@pytest.mark.parametrize("name", [*STATISTICAL, "fixed"])
def test_what_is_concatenated_has_the_range_of_the_whole(source: Sources, statistics: Gathered, name: str) -> None:
    ranges = ranges_for(static(name), source(), statistics(4))
    logits = next(whole for whole in made_by(source(), "CONCATENATION") if whole != BOXES)
    heads = [head for head in made_by(source(), "CONV_2D") if "BoxPredictor" in head]
    for head in [*heads, *made_by(source(), "RESHAPE")]:
        assert ranges[head] == ranges[BOXES if "_boxes" in head else logits]
    if name != "fixed":
        whole = statistics(4).tensor(logits)
        assert ranges[logits] == estimator_of(name)(whole, Grid(bits=8, symmetric=False))


@pytest.mark.parametrize(
    ("scheme", "grid"),
    [
        (static("mse"), Grid(8, symmetric=False)),
        (static("mse", symmetry="symmetric"), Grid(8, symmetric=True)),
        (StaticInt4(range_estimator="mse"), Grid(8, symmetric=False)),
        (StaticInt8x16(toolchain="litert_quantizer", range_estimator="mse"), Grid(16, symmetric=True)),
    ],
    ids=["int8", "symmetric int8", "int4", "int8x16"],
)
def test_the_scheme_decides_about_the_grid(source: Sources, statistics: Gathered, scheme: Scheme, grid: Grid) -> None:
    ranges = ranges_for(scheme, source(), statistics(4))
    assert ranges[BOXES] == estimator_of("mse")(statistics(4).tensor(BOXES), grid)


def test_larger_samples_have_wider_min_max_ranges(source: Sources, statistics: Gathered) -> None:
    small, large = (ranges_for(static("min_max"), source(), statistics(size)) for size in (2, 4))
    assert all(large[name][0] <= low and high <= large[name][1] for name, (low, high) in small.items())
    assert small != large


def test_fixed_ranges_are_read_off_the_graph(source: Sources) -> None:
    ranges = fixed(source())
    heads = [head for head in made_by(source(), "CONV_2D") if "BoxPredictor" in head]
    relu6 = [name for name in made_by(source(), "CONV_2D") if name not in heads]
    assert next(iter(ranges.values())) == (-1, 1)
    assert {ranges[name] for name in [*relu6, *made_by(source(), "DEPTHWISE_CONV_2D")]} == {(0, 6)}
    assert {ranges[name] for name in made_by(source(), "LOGISTIC")} == {(0, 1)}
    assert {ranges[name] for name in [*heads, *made_by(source(), "CONCATENATION")]} == {LINEAR_RANGE}


def test_a_minimum_has_the_range_that_its_caps_leave(source: Sources, statistics: Gathered) -> None:
    model = source("equalized")
    capped = made_by(model, "MINIMUM")
    assert capped
    known, seen = fixed(model), ranges_for(static("min_max"), model, statistics(4, "equalized"))
    tree = read(model)
    for operator in tree.subgraphs[0].operators:
        if operator_name(tree, operator) == "MINIMUM":
            before, caps = (tree.subgraphs[0].tensors[index] for index in operator.inputs)
            after = text(tree.subgraphs[0].tensors[operator.outputs[0]].name)
            greatest = np.frombuffer(tree.buffers[caps.buffer].data, np.float32).max()
            assert known[after] == known[text(before.name)] == (0, pytest.approx(greatest))
            assert seen[after] == seen[text(before.name)]
            assert seen[after][1] <= greatest


def test_statistics_of_another_model_are_refused(source: Sources) -> None:
    others = image_statistics("a", ("x",), [np.ones(3, np.float32)])
    with pytest.raises(QuantizationFailed, match="another model"):
        ranges_for(static("mse"), source(), others)


def test_statistics_are_asked_for_where_they_are_needed(source: Sources) -> None:
    with pytest.raises(QuantizationFailed, match="entropy ranges need statistics"):
        ranges_for(static("entropy"), source(), None)
