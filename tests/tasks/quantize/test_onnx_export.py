"""The float32 .onnx: the same detector, with names that tell its layers and nothing that should not be in a file."""

import logging
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector
from tasks.quantize.artifact import make
from tasks.quantize.onnx_export import export
from tasks.quantize.schemes import Float32
from tasks.runtimes.base import runtime_of
from tests.tasks.quantize.conftest import small_detector


def outputs_of(runtime: str, data: bytes, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    opened = runtime_of(runtime)
    session = opened.open(data, opened.settings())
    try:
        return session.run(pixels)
    finally:
        session.close()


def with_caps(detector: Detector) -> Detector:
    """Caps of every kind: all at 6, some below and above 6, none."""
    table = [layer for layer in layers(detector.spec) if layer.kind != "head"]
    caps = {
        f"{layer.name}/cap": np.linspace(0.5, 6 if index % 3 else 9, layer.out_channels).astype(np.float32)
        for index, layer in enumerate(table)
        if index % 4
    }
    return Detector(detector.spec, detector.tensors | caps)


@pytest.fixture(scope="module")
def exported(detector) -> bytes:
    return export(detector)


@pytest.fixture(scope="module")
def graph(exported) -> onnx.GraphProto:
    return onnx.load_from_string(exported).graph


def test_outputs_are_those_of_litert(exported, source, pixels):
    for ours, theirs in zip(
        outputs_of("onnxruntime", exported, pixels), outputs_of("litert", source(), pixels), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_detector_with_caps_gives_what_litert_gives(detector, pixels):
    capped = with_caps(detector)
    ours = outputs_of("onnxruntime", export(capped), pixels)
    for one, other in zip(ours, outputs_of("litert", make(capped, Float32()), pixels), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_no_operator_is_there_but_those_of_the_architecture(graph, detector):
    convolutions = len(layers(detector.spec))
    heads = 2 * detector.spec.feature_maps
    assert Counter(node.op_type for node in graph.node) == {
        "Conv": convolutions, "Clip": convolutions - heads, "Transpose": heads, "Reshape": heads, "Concat": 2,
        "Sigmoid": 1,
    }  # fmt: skip


def test_convolutions_and_their_weights_have_the_names_and_the_values_of_the_layers(graph, detector):
    constants = {item.name: to_array(item) for item in graph.initializer}
    assert [node.name for node in graph.node if node.op_type == "Conv"] == [
        layer.name for layer in layers(detector.spec)
    ]
    for layer in layers(detector.spec):
        order = (2, 3, 0, 1) if layer.kind == "depthwise" else (3, 2, 0, 1)
        weights = detector.tensors[f"{layer.name}/weights"].transpose(order)
        np.testing.assert_array_equal(constants[f"{layer.name}.weight"], weights)
        np.testing.assert_array_equal(constants[f"{layer.name}.bias"], detector.tensors[f"{layer.name}/bias"])


def test_the_name_of_a_layer_is_the_name_of_its_output_after_the_activation_function(graph, detector):
    makers = {name: node for node in graph.node for name in node.output}
    assert {layer.name: makers[layer.name].op_type for layer in layers(detector.spec)} == {
        layer.name: "Conv" if layer.kind == "head" else "Clip" for layer in layers(detector.spec)
    }


def test_layers_of_equal_weights_keep_weights_of_their_own(detector):
    zeros = {name: np.zeros_like(value) for name, value in detector.tensors.items()}
    names = {item.name for item in onnx.load_from_string(export(Detector(detector.spec, zeros))).graph.initializer}
    assert names >= {f"{layer.name}.{role}" for layer in layers(detector.spec) for role in ("weight", "bias")}


@pytest.mark.parametrize("size", [65, pytest.param(97, marks=pytest.mark.slow)])
def test_odd_sizes_are_padded_as_litert_pads_them(size):
    small = small_detector(0)
    spec = SSDMobileNetV1Spec(depth_multiplier=0.25, image_size=size, class_ids=small.spec.class_ids)
    odd = Detector(spec, small.tensors)
    pixels = np.random.default_rng(2).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    ours, theirs = outputs_of("onnxruntime", export(odd), pixels), outputs_of("litert", make(odd, Float32()), pixels)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_ends_have_names_and_static_shapes(graph, detector):
    size, classes = detector.spec.image_size, len(detector.spec.class_ids)
    shapes = {
        item.name: [side.dim_value for side in item.type.tensor_type.shape.dim]
        for item in (*graph.input, *graph.output)
    }
    anchors = shapes["boxes"][1]
    assert shapes == {"images": [1, 3, size, size], "boxes": [1, anchors, 4], "scores": [1, anchors, classes]}


def test_equal_detectors_give_equal_bytes(exported):
    assert export(small_detector(0)) == exported
    assert export(small_detector(1)) != exported


def test_nothing_tells_where_or_by_whom_the_file_was_made(exported, graph):
    model = onnx.load_from_string(exported)
    notes = [model.doc_string, graph.doc_string, *(node.doc_string for node in graph.node)]
    assert not any(notes) and not model.metadata_props
    assert not any(node.metadata_props for node in graph.node)
    assert b".py" not in exported


def test_the_exporter_keeps_quiet(detector, capfd, caplog):
    export(detector)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
