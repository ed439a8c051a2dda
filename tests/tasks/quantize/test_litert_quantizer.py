"""litert-quantizer makes every kernel of a float flatbuffer what the recipe says, and the runtime computes it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import AuditMismatch, QuantizationFailed
from tasks.quantize.artifact import make
from tasks.quantize.audit import audit, check_audit
from tasks.quantize.builders import Material, builder_of, builders
from tasks.quantize.flatbuffer import constant, operator_name, read, text, write
from tasks.quantize.float_scopes import float_scopes
from tasks.quantize.kernels import kernels, weights_of
from tasks.quantize.layer_names import layer_names
from tasks.quantize.schemes import (
    DynamicInt4,
    DynamicInt8,
    Float16,
    Qat,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt4,
    WeightOnlyInt8,
)
from tasks.quantize.statistics import Statistics
from tasks.runtimes.base import runtime_of
from tasks.types import RuntimeSettings

STATIC = StaticInt8(toolchain="litert_quantizer", calibration_images=4)
FOUR_BITS: list[Any] = [WeightOnlyInt4(), DynamicInt4(), StaticInt4(calibration_images=4)]
INTEGER: list[Any] = [
    *FOUR_BITS,
    WeightOnlyInt8(),
    DynamicInt8(toolchain="litert_quantizer"),
    STATIC,
    replace(STATIC, symmetry="symmetric"),
    StaticInt8x16(toolchain="litert_quantizer", calibration_images=4),
]
ONE_OF_EACH_KIND = ("Conv2d_0", "Conv2d_3_depthwise", "Conv2d_1_pointwise", "Extra_2_3x3", "BoxPredictor_0_scores")

SourceOf = Callable[..., bytes]
StatisticsOf = Callable[..., Statistics]
Build = Callable[[Scheme], bytes]

every_scheme = pytest.mark.parametrize(
    "scheme", INTEGER, ids=lambda scheme: f"{scheme.name}-{scheme.axes().get('symmetry')}"
)


@pytest.fixture
def material(detector: Detector, source: SourceOf, statistics: StatisticsOf) -> Material:
    return Material(detector, source(), statistics(4))


def outputs(data: bytes, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(boxes, scores) as the runtime gives them."""
    session = runtime_of("litert").open(data, RuntimeSettings())
    try:
        return session.run(pixels)
    finally:
        session.close()


def test_every_builder_starts_from_the_float32_artifact_without_a_framework() -> None:
    made = [builder for builder in builders() if builder.toolchain == "litert_quantizer"]
    # Each training gives other weights, so that what is made of them is no float artifact that others share.
    found = [builder for builder in made if not issubclass(builder.scheme, Qat)]
    assert {builder.scheme for builder in found} == {Float16, *(type(scheme) for scheme in INTEGER)}
    assert all(
        builder.source == "converter" and builder.framework == "none" and not builder.limits for builder in found
    )


def test_building_imports_no_framework(source: SourceOf, tmp_path: Path) -> None:
    (tmp_path / "source.tflite").write_bytes(source())
    program = """
import sys
from pathlib import Path
from tasks.quantize.builders import Material, builder_of
from tasks.quantize.schemes import Float16, StaticInt8, WeightOnlyInt4

material = Material(detector=None, source=Path(sys.argv[1]).read_bytes())
for scheme in (
    Float16(toolchain="litert_quantizer"), WeightOnlyInt4(weight_algorithm="mse"),
    StaticInt8(toolchain="litert_quantizer", range_estimator="fixed"),
):
    assert builder_of(scheme).build(material, scheme)[4:8] == b"TFL3"
print(sorted({"tensorflow", "tf_keras", "keras", "torch", "jax"} & set(sys.modules)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "source.tflite")], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip().endswith("[]")


@pytest.mark.parametrize("scheme", [Float16(toolchain="litert_quantizer"), STATIC], ids=lambda scheme: scheme.name)
def test_without_a_float32_artifact_nothing_is_made(scheme: Any, material: Material) -> None:
    with pytest.raises(QuantizationFailed, match="starts from the float32 artifact, and none was given"):
        builder_of(scheme).build(replace(material, source=None), scheme)


@every_scheme
def test_a_layer_that_is_kept_has_its_float_weights(scheme: Any, built: Build, source: SourceOf) -> None:
    data = built(replace(scheme, keep_float="|".join(ONE_OF_EACH_KIND)))
    before, after = read(source()), read(data)
    found = kernels(after)
    for one, other, name in zip(kernels(before), found, layer_names(found), strict=True):
        if name in ONE_OF_EACH_KIND:
            assert (other.arithmetic, other.widened) == ("float32", False)
            assert (weights_of(before, one) == weights_of(after, other)).all()
            assert constant(before, one.bias) == constant(after, other.bias)
        else:
            assert other.arithmetic != "float32"


@every_scheme
@pytest.mark.parametrize("layer", ONE_OF_EACH_KIND)
def test_all_layers_but_one_can_be_kept(scheme: Any, layer: str, detector: Detector, material: Material) -> None:
    kept = tuple(other.name for other in layers(detector.spec) if other.name != layer)
    found = audit(builder_of(scheme).build(replace(material, kept_float=kept), scheme))
    check_audit(found, scheme, kept)
    assert [name for name, arithmetic in found.layers.items() if not arithmetic.startswith("float32")] == [layer]


def test_a_name_within_another_name_is_not_taken_for_it(built: Build) -> None:
    found = audit(built(replace(STATIC, keep_float="Conv2d_1_pointwise|BoxPredictor_0_boxes")))
    assert {name for name, arithmetic in found.layers.items() if arithmetic == "float32"} == {
        "Conv2d_1_pointwise",
        "BoxPredictor_0_boxes",
    }


def test_operators_without_weights_follow_what_they_read(source: SourceOf) -> None:
    model = read(source())
    producers = {
        "".join(f"{text(model.subgraphs[0].tensors[int(index)].name)};" for index in operator.outputs): operator_name(
            model, operator
        )
        for operator in model.subgraphs[0].operators
    }

    def in_float(*kept: str) -> list[str]:
        return [producers[scope] for scope in float_scopes(source(), kept)]

    assert in_float() == []
    assert in_float("Conv2d_5_pointwise") == ["CONV_2D"]
    assert in_float("BoxPredictor_2_boxes") == ["CONV_2D", "RESHAPE", "CONCATENATION"]
    assert in_float("BoxPredictor_2_scores") == ["CONV_2D", "RESHAPE", "CONCATENATION", "LOGISTIC"]


def test_a_layer_that_is_not_there_cannot_be_kept(material: Material) -> None:
    with pytest.raises(QuantizationFailed, match="no kernel of the float32 artifact has the name Conv2d_99"):
        builder_of(STATIC).build(replace(material, kept_float=("Conv2d_99",)), STATIC)


@pytest.mark.parametrize("scheme", FOUR_BITS, ids=lambda scheme: scheme.name)
def test_depthwise_weights_have_eight_bits_where_the_others_have_four(scheme: Any, built: Build) -> None:
    found = audit(built(scheme)).layers
    depthwise = {arithmetic for name, arithmetic in found.items() if name.endswith("_depthwise")}
    others = {arithmetic for name, arithmetic in found.items() if not name.endswith("_depthwise")}
    assert len(depthwise) == len(others) == 1
    assert "int4" in others.pop() and "int8" in depthwise.pop()


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("scheme", FOUR_BITS, ids=lambda scheme: scheme.name)
def test_the_runtime_computes_four_bits_as_the_same_numbers_in_eight(
    scheme: Any, granularity: str, built: Build, pixels: np.ndarray
) -> None:
    from ai_edge_litert.schema_py_generated import TensorType

    data = built(replace(scheme, granularity=granularity, weight_algorithm="mse"))
    model = read(data)
    for kernel in kernels(model):
        if kernel.weights.type == TensorType.INT4:
            shape = [int(size) for size in kernel.weights.shape]
            others = [size for axis, size in enumerate(shape) if axis != kernel.channel_axis]
            values = np.moveaxis(weights_of(model, kernel).reshape(-1, *others), 0, kernel.channel_axis)
            model.buffers[kernel.weights.buffer].data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            kernel.weights.type = TensorType.INT8
    for four, eight in zip(outputs(data, pixels[:1]), outputs(write(model), pixels[:1]), strict=True):
        # Kernels of different origin round a half to different sides, in every layer.
        assert np.square(four - eight).mean() <= 0.1**2 * np.square(eight).mean()


@pytest.mark.parametrize("symmetry", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("keep_float", ["none", "Conv2d_0|BoxPredictor_*"])
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_the_ends_can_be_integers(kind: str, keep_float: str, symmetry: Any, built: Build, pixels: np.ndarray) -> None:
    scheme: Any = replace(STATIC, symmetry=symmetry, keep_float=keep_float)
    whole: Any = replace(scheme, input_type=kind, output_type=kind)
    found = audit(built(whole))
    assert (found.input_type, set(found.output_types.values())) == (kind, {kind})
    for one, other in zip(outputs(built(whole), pixels[:1]), outputs(built(scheme), pixels[:1]), strict=True):
        assert np.abs(one - other).max() <= 0.1 * np.abs(other).max()


@pytest.mark.parametrize("algorithm", ["gptq", "oscar"])
@every_scheme
def test_algorithms_that_leave_convolutions_in_float_are_refused(
    scheme: Any, algorithm: str, detector: Detector, material: Material
) -> None:
    wanted = replace(scheme, weight_algorithm=algorithm)
    with pytest.raises(AuditMismatch, match=r"100.00% of its multiply-accumulates are float32"):
        make(detector, wanted, material.source, material.statistics)


@every_scheme
def test_the_source_is_left_as_it_was(scheme: Any, material: Material) -> None:
    before = bytes(bytearray(material.source or b""))
    first = builder_of(scheme).build(material, scheme)
    assert builder_of(scheme).build(material, scheme) == first
    assert material.source == before
