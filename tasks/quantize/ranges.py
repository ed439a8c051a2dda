"""Ranges: what each activation of a float flatbuffer is quantized over, by the scheme's range estimator."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.errors import QuantizationFailed
from tasks.quantize.estimators import FIXED, Grid, estimator_of
from tasks.quantize.flatbuffer import constant, operator_name, read, text
from tasks.quantize.observe import activations
from tasks.quantize.schemes import Scheme, StaticInt8x16
from tasks.quantize.statistics import Statistics

Ranges = dict[str, tuple[float, float]]
"""(low, high) by name of the tensor in the float flatbuffer; input, activations and outputs."""

INPUT_RANGE = (-1.0, 1.0)
"""What the detector is fed: pixels / 127.5 - 1."""

LINEAR_RANGE = (-6.0, 6.0)
"""Of outputs that nothing bounds, where ranges are fixed: the 6 of `RELU_RANGE` on both sides. Logits of -6 and 6 are
scores of .0025 and .9975; box encodings of 6 are 0.6 of an anchor's side, or a factor of 3.3 in size."""

RELU_RANGE = (0.0, 6.0)
"""Of outputs bounded below alone, where ranges are fixed: TOCO's `--default_ranges_min=0 --default_ranges_max=6`."""

_SAME_SCALE = ("RESHAPE", "CONCATENATION", "MINIMUM")
"""Operators that only move or choose numbers: their inputs and outputs have one scale."""

_RANGES = {
    "LOGISTIC": (0.0, 1.0),
    "SOFTMAX": (0.0, 1.0),
    "TANH": (-1.0, 1.0),
    "RELU": RELU_RANGE,
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}
"""What operators, and the activation functions fused into them, are known to give."""


def ranges_for(scheme: Scheme, model: bytes, statistics: Statistics | None) -> Ranges:
    """Chooses the range of each activation of a float flatbuffer.

    Tensors that quantization gives one scale (what a reshape, a concatenation or a minimum reads and makes) get one
    range: that of the one that holds all their values. So the estimator sees all values that the scale is for, and
    nothing is scaled anew between them. For `min_max` that is what TFLiteConverter makes of the ranges of each.

    Args:
        scheme: A static scheme.
        model: The float32 .tflite.
        statistics: Of its activations, unless the scheme's range estimator is `fixed`.

    Returns:
        The ranges.

    Raises:
        QuantizationFailed: If the statistics are missing, or of another model.
    """
    axes = scheme.axes()
    graph = activation_graph(model)
    if axes["range_estimator"] == FIXED:
        return dict(graph.fixed)
    if statistics is None:
        raise QuantizationFailed(f"{axes['range_estimator']} ranges need statistics of calibration images")
    if statistics.tensors != tuple(graph.wholes):
        raise QuantizationFailed("the statistics of activations are of another model")
    wide = isinstance(scheme, StaticInt8x16)
    grid = Grid(bits=16 if wide else 8, symmetric=wide or axes.get("symmetry") == "symmetric")
    estimate = estimator_of(axes["range_estimator"])
    ranges = {whole: estimate(statistics.tensor(whole), grid) for whole in set(graph.wholes.values())}
    return {name: ranges[whole] for name, whole in graph.wholes.items()}


@dataclass(frozen=True)
class ActivationGraph:
    """What ranges need to know of a float flatbuffer."""

    wholes: dict[str, str]
    """For each activation, in order, the one of the same scale that holds the values of all."""

    fixed: Ranges
    """Range of each activation where no images are looked at."""


@lru_cache(maxsize=2)
def activation_graph(model: bytes) -> ActivationGraph:
    """Reads a model, which takes as long as estimating all ranges; many variants are made of one.

    Args:
        model: A float .tflite.

    Returns:
        What ranges need to know of it.
    """
    tree = read(model)
    wholes, own = _wholes(tree), _fixed_ranges(tree)
    return ActivationGraph(wholes, {name: own[whole] for name, whole in wholes.items()})


def _fixed_ranges(tree: Any) -> Ranges:
    """Reads the own range of each activation off the graph.

    What is known is used: the input's range, fused activation functions, logistic and constants that a minimum is taken
    with. The others get default ranges. Source: TOCO's "dummy-quantization", `--default_ranges_min` and
    `--default_ranges_max` (tensorflow/lite/toco/g3doc/cmdline_reference.md), which gives them to all arrays alike.
    """
    graph = tree.subgraphs[0]
    found = {int(index): INPUT_RANGE for index in graph.inputs}
    for operator in graph.operators:
        inputs = [found[int(index)] for index in operator.inputs if int(index) in found]
        made = _fixed_range(tree, operator, inputs)
        found |= {int(index): made for index in operator.outputs}
    return {text(graph.tensors[index].name): made for index, made in found.items()}


def _fixed_range(tree: Any, operator: Any, inputs: list[tuple[float, float]]) -> tuple[float, float]:
    name = operator_name(tree, operator)
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
    function = _fused_name(fused) if fused else name
    if function in _RANGES:
        return _RANGES[function]
    if name not in _SAME_SCALE:
        return LINEAR_RANGE
    low, high = min(low for low, _ in inputs), max(high for _, high in inputs)
    return (low, _greatest_constant(tree, operator, high)) if name == "MINIMUM" else (low, high)


def _greatest_constant(tree: Any, operator: Any, default: float) -> float:
    tensors = [tree.subgraphs[0].tensors[index] for index in operator.inputs]
    stored = [data for tensor in tensors if (data := constant(tree, tensor)) is not None]
    return max((float(np.frombuffer(data, np.float32).max()) for data in stored), default=default)


def _wholes(tree: Any) -> dict[str, str]:
    """Finds the whole of each activation: the last of the largest of its scale."""
    graph = tree.subgraphs[0]
    names = {index: name for name, index in activations(tree).items()}
    places = {index: place for place, index in enumerate(names)}
    groups = {index: [index] for index in names}
    for operator in graph.operators:
        if operator_name(tree, operator) in _SAME_SCALE:
            ends = [int(index) for index in (*operator.inputs, *operator.outputs) if int(index) in groups]
            joined = list({member: None for end in ends for member in groups[end]})
            groups |= dict.fromkeys(joined, joined)

    def size_and_place(index: int) -> tuple[int, int]:
        return int(np.prod(graph.tensors[index].shape)), places[index]

    return {names[index]: names[max(members, key=size_and_place)] for index, members in groups.items()}


def _fused_name(code: int) -> str:
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    return next(name for name, value in vars(ActivationFunctionType).items() if value == code)
