"""What is read back from .onnx files, and what two of them must have in common to be timed as one."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import ArtifactUnreadable, AuditMismatch
from tasks.quantize.artifact import make
from tasks.quantize.audit import check_audit
from tasks.quantize.formats.onnx import audit, structure_sha256
from tasks.quantize.onnx_export import export
from tasks.quantize.schemes import DynamicInt8, StaticInt8
from tests.tasks.quantize.conftest import small_detector

IMAGES = 4


def static(**axes) -> StaticInt8:
    return StaticInt8(**{"toolchain": "onnxruntime", "calibration_images": IMAGES} | axes)


DYNAMIC = DynamicInt8(toolchain="onnxruntime", granularity="per_tensor")


@pytest.fixture(scope="module")
def float32(source) -> bytes:
    return source("none", "onnx")


def changed(data: bytes, change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(data)
    change(model)
    return model.SerializeToString()


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def test_float32_is_float32_throughout(float32, detector):
    found = audit(float32)
    table = layers(detector.spec)
    assert found.mac_share == found.weight_share == {"float32": 1.0}
    assert found.layers == {layer.name: "float32" for layer in table}
    assert found.macs == sum(layer.macs for layer in table)
    assert (found.granularity, found.symmetric_activations) == (None, None)
    assert found.input_type == "float32"
    assert found.output_types == {"boxes": "float32", "scores": "float32"}
    assert found.operators["Conv"] == len(table)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_static_int8_is_int8_throughout(built, detector, granularity):
    found = audit(built(static(granularity=granularity)))
    assert found.mac_share == found.weight_share == {"int8": 1.0}
    assert found.granularity == granularity
    assert found.symmetric_activations is False
    assert found.macs == sum(layer.macs for layer in layers(detector.spec))


@pytest.mark.parametrize("activation_type", ["uint8", "int8"])
def test_symmetric_activations_are_seen_in_either_type(built, activation_type):
    assert audit(built(static(symmetry="symmetric", activation_type=activation_type))).symmetric_activations is True


def test_dynamic_int8_is_dynamic_throughout(built, detector):
    found = audit(built(DYNAMIC))
    assert found.mac_share == {"dynamic_int8": 1.0}
    assert found.weight_share == {"uint8": 1.0}
    assert found.granularity == "per_tensor"
    assert set(found.layers) == {layer.name for layer in layers(detector.spec)}
    assert found.symmetric_activations is None


def test_a_kept_layer_counts_as_float(built, detector):
    found = audit(built(static(keep_float="Conv2d_0")))
    first = layers(detector.spec)[0]
    assert found.layers["Conv2d_0"] == "float32"
    assert found.mac_share["float32"] == pytest.approx(first.macs / found.macs)
    assert found.mac_share["int8"] == pytest.approx(1 - first.macs / found.macs)


def unquantize_output(model: onnx.ModelProto) -> None:
    """Takes the integers away behind a head."""
    reader = node_of(model, "BoxPredictor_0_scores/Transpose")
    reader.input[0] = node_of(model, "BoxPredictor_0_scores").output[0]


def unquantize_bias(model: onnx.ModelProto) -> None:
    layer = node_of(model, "BoxPredictor_0_scores")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(15, np.float32), "plain"))
    layer.input[2] = "plain"


def unquantize_input(model: onnx.ModelProto) -> None:
    node_of(model, "Conv2d_0").input[0] = "images"


@pytest.mark.parametrize(
    "change,layer",
    [
        (unquantize_output, "BoxPredictor_0_scores"),
        (unquantize_bias, "BoxPredictor_0_scores"),
        (unquantize_input, "Conv2d_0"),
    ],
)
def test_a_convolution_with_float_around_it_is_no_int8_arithmetic(built, change, layer):
    found = audit(changed(built(static()), change))
    assert {name for name, arithmetic in found.layers.items() if arithmetic != "int8"} == {layer}
    assert found.layers[layer] == "weight_only_int8"
    with pytest.raises(AuditMismatch, match="not int8"):
        check_audit(found, static())


def test_a_float_model_that_is_called_int8_is_refused(float32):
    with pytest.raises(AuditMismatch, match="float32, not int8"):
        check_audit(audit(float32), static())


def test_lost_names_leave_no_layers(built):
    def rename(model: onnx.ModelProto) -> None:
        node_of(model, "Conv2d_0").name = "first"

    found = audit(changed(built(static()), rename))
    assert found.layers == {}
    assert found.mac_share == {"int8": 1.0}


def test_weights_that_are_computed_are_refused(float32):
    def compute(model: onnx.ModelProto) -> None:
        layer = node_of(model, "Conv2d_0")
        identity = helper.make_node("Identity", [layer.input[1]], ["computed"])
        layer.input[1] = "computed"
        model.graph.node.insert(0, identity)

    with pytest.raises(AuditMismatch, match="Conv2d_0 are not constant"):
        audit(changed(float32, compute))


def test_the_codebook_is_counted_by_channel_and_without_depthwise_layers(detector):
    from tasks.quantize.transforms.base import transformed

    clustered = audit(export(transformed(detector, "clustered_16")))
    assert 0 < clustered.codebook_size <= 16
    assert audit(export(detector)).codebook_size > 16


def test_calibration_and_training_do_not_change_the_structure(built, float32, statistics):
    usual = structure_sha256(built(static()))
    for scheme in (static(calibration_images=2), static(range_estimator="fixed"), static(range_estimator="entropy")):
        assert structure_sha256(built(scheme)) == usual
    other = small_detector(1)
    assert structure_sha256(export(other)) == structure_sha256(float32)
    fixed = static(range_estimator="fixed")
    assert structure_sha256(make(other, fixed, export(other))) == usual


def test_what_makes_a_difference_in_time_changes_the_structure(built, float32):
    schemes = [
        static(), static(granularity="per_tensor"), static(activation_type="int8"), static(symmetry="symmetric"),
        static(keep_float="Conv2d_0"), static(keep_float="Conv2d_1_pointwise"), DYNAMIC,
    ]  # fmt: skip
    found = {structure_sha256(built(scheme)) for scheme in schemes} | {structure_sha256(float32)}
    assert len(found) == len(schemes) + 1


def test_names_and_notes_do_not_change_the_structure(float32):
    def rename(model: onnx.ModelProto) -> None:
        model.doc_string, model.producer_version = "made on a Monday", "9"
        for node in model.graph.node:
            node.name, node.doc_string = "", "somewhere"

    assert structure_sha256(changed(float32, rename)) == structure_sha256(float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: node_of(model, "Conv2d_0").attribute[4].ints.__setitem__(0, 1),
        lambda model: model.graph.output[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 3),
        lambda model: node_of(model, "scores/Sigmoid").__setattr__("op_type", "Tanh"),
    ],
    ids=["padding", "shape", "operator"],
)
def test_other_graphs_have_other_structures(float32, change):
    model = onnx.load_from_string(float32)
    assert model.graph.node[0].attribute[4].name == "pads"
    change(model)
    assert structure_sha256(model.SerializeToString()) != structure_sha256(float32)


@pytest.mark.parametrize("read", [audit, structure_sha256])
@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04" + bytes(100), b"not a graph", bytes(1000), b"\x1c\x00\x00\x00TFL3" + bytes(64)]
)
def test_foreign_files_are_unreadable(read, data):
    with pytest.raises(ArtifactUnreadable):
        read(data)


@pytest.mark.parametrize("read", [audit, structure_sha256])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_unreadable(built, read, share):
    data = built(static())
    with pytest.raises(ArtifactUnreadable):
        read(data[: int(len(data) * share)])


def test_damaged_files_are_unreadable_or_read_but_nothing_else(built):
    data, random = built(static()), np.random.default_rng(0)
    unreadable = 0
    for _ in range(100):
        damaged = bytearray(data)
        start = int(random.integers(0, len(data) - 8))
        damaged[start : start + 8] = random.bytes(8)
        try:
            audit(bytes(damaged))
        except (ArtifactUnreadable, AuditMismatch):
            unreadable += 1
    assert unreadable


def test_constants_shorter_than_their_shapes_are_unreadable(float32):
    def shorten(model: onnx.ModelProto) -> None:
        item = model.graph.initializer[0]
        item.raw_data = item.raw_data[:-4]

    with pytest.raises(ArtifactUnreadable):
        audit(changed(float32, shorten))
