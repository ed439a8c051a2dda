"""Ranges by layer are those of the flatbuffer's tensors, found without TensorFlow and torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.quantize.estimators import Grid, estimator_of
from tasks.quantize.flatbuffer import operator_name, read, text
from tasks.quantize.layer_names import layer_of
from tasks.quantize.layer_ranges import layer_ranges
from tasks.quantize.observe import image_statistics
from tasks.quantize.ranges import LINEAR_RANGE, ranges_for
from tasks.quantize.schemes import StaticInt8
from tasks.quantize.statistics import Statistics
from tasks.quantize.transforms.base import transformed

STATISTICAL = ("min_max", "moving_average", "mean_min_max", "percentile_99_9", "mse", "histogram", "entropy")

Sources = Callable[..., bytes]
Gathered = Callable[..., Statistics]


def static(estimator: str, **axes: Any) -> StaticInt8:
    return StaticInt8(toolchain="pt2e", range_estimator=estimator, **axes)


def made_last(model: bytes) -> dict[str, str]:
    """Name of the tensor that the last convolution or minimum of each layer makes."""
    tree = read(model)
    tensors = tree.subgraphs[0].tensors
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "MINIMUM")
    found = [item for item in tree.subgraphs[0].operators if operator_name(tree, item) in kinds]
    names = [text(tensors[item.outputs[0]].name) for item in found]
    return {str(layer_of(name)): name for name in names}


@pytest.mark.parametrize("symmetry", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("transform", ["none", "equalized"])
@pytest.mark.parametrize("name", STATISTICAL)
def test_layers_have_the_ranges_of_their_tensors(
    detector: Detector, source: Sources, statistics: Gathered, name: str, transform: str, symmetry: str
) -> None:
    scheme, seen = static(name, symmetry=symmetry), statistics(4, transform)
    found = layer_ranges(scheme, transformed(detector, transform), seen)
    assert list(found) == ["image", *(layer.name for layer in layers(detector.spec))]
    by_tensor, tensors = ranges_for(scheme, source(transform), seen), made_last(source(transform))
    grid = Grid(bits=8, symmetric=symmetry == "symmetric")
    assert found["image"] == by_tensor[seen.tensors[0]]
    for layer in layers(detector.spec):
        if layer.kind == "head":
            # The flatbuffer's heads share the range of what they are concatenated to.
            assert found[layer.name] == estimator_of(name)(seen.tensor(tensors[layer.name]), grid)
        else:
            assert found[layer.name] == by_tensor[tensors[layer.name]]


def test_the_range_of_a_capped_layer_is_that_behind_its_caps(detector: Detector, statistics: Gathered) -> None:
    equalized = transformed(detector, "equalized")
    capped = [name.removesuffix("/cap") for name in equalized.tensors if name.endswith("/cap")]
    seen, fixed = (layer_ranges(static(name), equalized, statistics(4, "equalized")) for name in ("min_max", "fixed"))
    assert capped
    for name in capped:
        greatest = float(equalized.tensors[f"{name}/cap"].max())
        assert fixed[name] == (0, pytest.approx(greatest))
        assert seen[name][1] <= greatest


def test_fixed_ranges_need_no_images(detector: Detector) -> None:
    found = layer_ranges(static("fixed"), detector, None)
    heads = {layer.name for layer in layers(detector.spec) if layer.kind == "head"}
    assert found["image"] == (-1, 1)
    assert {found[name] for name in heads} == {LINEAR_RANGE}
    assert {found[name] for name in found.keys() - heads - {"image"}} == {(0, 6)}


def test_statistics_are_asked_for_where_they_are_needed(detector: Detector) -> None:
    with pytest.raises(QuantizationFailed, match="histogram ranges need statistics"):
        layer_ranges(static("histogram"), detector, None)


def test_statistics_of_another_model_are_refused(detector: Detector, statistics: Gathered) -> None:
    with pytest.raises(QuantizationFailed, match="another model: they lack Conv2d_0"):
        layer_ranges(static("mse"), detector, image_statistics("a", ("x",), [np.ones(3, np.float32)]))
    larger = Detector(replace(detector.spec, image_size=96), detector.tensors)
    with pytest.raises(QuantizationFailed, match="another model: image has 27648 values an image"):
        layer_ranges(static("mse"), larger, statistics(4))


def test_ranges_are_found_without_a_framework() -> None:
    program = "import json, sys, tasks.quantize.layer_ranges; print(json.dumps(sorted(sys.modules)))"
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    loaded = set(json.loads(made.stdout))
    assert "tasks.quantize.layer_ranges" in loaded
    assert not loaded & {"tensorflow", "torch", "tf_keras", "ai_edge_litert", "onnxruntime", "openvino"}
