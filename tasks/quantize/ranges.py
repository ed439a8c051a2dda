"""Ranges: what each activation of a float flatbuffer is quantized over, by the scheme's range estimator."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tasks.errors import QuantizationFailed
from tasks.quantize.estimators import FIXED, Grid, estimator_of
from tasks.quantize.flatbuffer import constant, element_type, operator_name, read, text
from tasks.quantize.schemes import Scheme, StaticInt8x16
from tasks.quantize.statistics import Statistics

Ranges = dict[str, tuple[float, float]]
"""(low, high) by name of the tensor in the float flatbuffer; input, activations and outputs."""

INPUT_RANGE = (-1.0, 1.0)
"""What the detector is fed: pixels / 127.5 - 1."""

LINEAR_RANGE = (-8.0, 8.0)
"""Of outputs that nothing bounds, where ranges are fixed: encoded boxes and logits."""

RELU_RANGE = (0.0, 6.0)
"""Of outputs bounded below alone, where ranges are fixed: TOCO's `--default_ranges_min=0 --default_ranges_max=6`."""

_SAME_SCALE = ("RESHAPE", "CONCATENATION", "MINIMUM")
"""Operators that only move or choose numbers: their inputs and outputs have one scale."""

_OPERATOR_RANGES = {"LOGISTIC": (0.0, 1.0), "SOFTMAX": (0.0, 1.0), "RELU": RELU_RANGE, "RELU6": (0.0, 6.0)}
_FUSED_RANGES = {"RELU": RELU_RANGE, "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "TANH": (-1.0, 1.0)}


def ranges_for(scheme: Scheme, model: bytes, statistics: Statistics | None) -> Ranges:
    """Chooses the range of each activation of a float flatbuffer.

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
    tree = read(model)
    names = _activation_names(tree)
    if axes["range_estimator"] == FIXED:
        return fixed_ranges(model)
    if statistics is None:
        raise QuantizationFailed(f"{axes['range_estimator']} ranges need statistics of calibration images")
    if statistics.tensors != names:
        raise QuantizationFailed("the statistics of activations are of another model")
    wide = isinstance(scheme, StaticInt8x16)
    grid = Grid(bits=16 if wide else 8, symmetric=wide or axes.get("symmetry") == "symmetric")
    estimate = estimator_of(axes["range_estimator"])
    return {name: estimate(statistics.tensor(name), grid) for name in names}


def fixed_ranges(model: bytes) -> Ranges:
    """Reads ranges off the graph."""
    raise NotImplementedError


def _activation_names(tree: Any) -> tuple[str, ...]:
    graph = tree.subgraphs[0]
    indices = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return tuple(text(graph.tensors[i].name) for i in indices if element_type(graph.tensors[i]) == "float32")
