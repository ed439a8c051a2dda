"""Artifacts that are not what their scheme promises are caught."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, AuditMismatch
from tasks.quantize import builders
from tasks.quantize.artifact import build_artifact
from tasks.quantize.audit import audit, check_audit
from tasks.quantize.builders import builder_of
from tasks.quantize.flatbuffer import read, scales, write
from tasks.quantize.float_flatbuffer import float_flatbuffer
from tasks.quantize.kernels import kernels
from tasks.quantize.ranges import Ranges
from tasks.quantize.schemes import DynamicInt8, Float16, Float32, Scheme, StaticInt8
from tasks.quantize.structure import structure_sha256
from tasks.storage import ArtifactStorage
from tests.tasks.quantize.test_schemes_are_kept import SCHEMES

STATIC = StaticInt8("litert_quantizer", calibration_images=4)


def test_a_broken_builder_gives_no_artifact(
    detector: Detector,
    calibrations: dict[int, Ranges],
    built: Callable[[Scheme], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = replace(builder_of(STATIC), build=lambda *_: built(Float32()))
    monkeypatch.setitem(builders._BUILDERS, (StaticInt8, "litert_quantizer"), broken)
    with pytest.raises(AuditMismatch, match=r"100.00% of its multiply-accumulates are float32, not int8"):
        build_artifact(detector, STATIC, calibrations[4], ArtifactStorage(str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "claimed", [Float32(), Float16(), DynamicInt8(), StaticInt8()], ids=lambda claimed: claimed.name
)
def test_a_scheme_is_not_taken_for_another(claimed: Scheme, built: Callable[[Scheme], bytes]) -> None:
    for scheme in SCHEMES:
        if type(scheme) is not type(claimed):
            with pytest.raises(AuditMismatch, match=f"not {claimed.name}"):
                check_audit(audit(built(scheme)), claimed)


@pytest.mark.parametrize("scheme", [DynamicInt8(), STATIC], ids=lambda scheme: scheme.name)
def test_the_wrong_granularity_is_caught(scheme: Any, built: Callable[[Scheme], bytes]) -> None:
    with pytest.raises(AuditMismatch, match="its granularity is per_tensor, not per_channel"):
        check_audit(audit(built(replace(scheme, granularity="per_tensor"))), scheme)


def quantizer_of(detector: Detector, algorithm: str, dynamic: bool) -> Any:
    from litert_quantizer import Quantizer
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import AlgorithmName

    quantizer = Quantizer(float_flatbuffer(detector))
    add = quantizer.add_dynamic_config if dynamic else quantizer.add_static_config
    bits: dict[str, int] = {"num_bits": 8} if dynamic else {"activation_num_bits": 8, "weight_num_bits": 8}
    add(".*", TFLOperationName.ALL_SUPPORTED, **bits, algorithm_key=AlgorithmName[algorithm])
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return quantizer


def statistics_of(ranges: Ranges) -> dict[str, dict[str, np.ndarray]]:
    return {name: {"min": np.array([[[[low]]]]), "max": np.array([[[[high]]]])} for name, (low, high) in ranges.items()}


@pytest.mark.parametrize("algorithm", ["GPTQ", "OSCAR"])
@pytest.mark.parametrize("scheme", [STATIC, DynamicInt8("litert_quantizer")], ids=lambda scheme: scheme.name)
def test_algorithms_that_quietly_leave_convolutions_float_are_caught(
    detector: Detector, calibrations: dict[int, Ranges], algorithm: str, scheme: Scheme
) -> None:
    quantizer = quantizer_of(detector, algorithm, dynamic=isinstance(scheme, DynamicInt8))
    result = quantizer.quantize(statistics_of(calibrations[4]), enable_progress_report=False).quantized_model
    with pytest.raises(AuditMismatch, match=r"100.00% of its multiply-accumulates are float32"):
        check_audit(audit(bytes(result)), scheme)


def test_one_head_left_in_float_is_caught(detector: Detector, calibrations: dict[int, Ranges]) -> None:
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import AlgorithmName

    quantizer = quantizer_of(detector, "MIN_MAX_UNIFORM_QUANT", dynamic=True)
    quantizer.update_quantization_recipe(
        "BoxPredictor_0_scores", TFLOperationName.CONV_2D, algorithm_key=AlgorithmName.NO_QUANTIZE
    )
    found = audit(bytes(quantizer.quantize(enable_progress_report=False).quantized_model))
    assert 0 < found.mac_share["float32"] < 0.1
    with pytest.raises(AuditMismatch, match="multiply-accumulates are float32, not dynamic_int8"):
        check_audit(found, DynamicInt8("litert_quantizer"))


def test_small_kernels_in_float_are_excused_for_the_converter_only(built: Callable[[Scheme], bytes]) -> None:
    found = audit(built(DynamicInt8("converter")))
    check_audit(found, DynamicInt8("converter"))
    with pytest.raises(AuditMismatch, match="float32_small, not dynamic_int8"):
        check_audit(found, DynamicInt8("litert_quantizer"))


def test_weights_that_are_only_stored_in_int8_are_told_from_dynamic_ones(detector: Detector) -> None:
    from litert_quantizer import Quantizer
    from litert_quantizer.qtyping import TFLOperationName

    quantizer = Quantizer(float_flatbuffer(detector))
    quantizer.add_weight_only_config(".*", TFLOperationName.ALL_SUPPORTED, num_bits=8)
    found = audit(bytes(quantizer.quantize(enable_progress_report=False).quantized_model))
    assert found.mac_share == {"weight_only_int8": 1.0}
    with pytest.raises(AuditMismatch, match="weight_only_int8, not dynamic_int8"):
        check_audit(found, DynamicInt8("litert_quantizer"))


def test_integer_inputs_and_outputs_are_not_float_ones(built: Callable[[Scheme], bytes]) -> None:
    found = audit(built(STATIC))
    with pytest.raises(AuditMismatch, match="the input is int8, not float32; scores is uint8, not float32"):
        check_audit(replace(found, input_type="int8", output_types={"boxes": "float32", "scores": "uint8"}), STATIC)


@pytest.mark.parametrize("toolchain", ["converter", "litert_quantizer"])
def test_depthwise_scales_that_litert_would_read_out_of_bounds_are_caught(
    toolchain: Any, built: Callable[[Scheme], bytes]
) -> None:
    model = read(built(DynamicInt8(toolchain, "per_tensor")))
    depthwise = next(
        kernel
        for kernel in kernels(model)
        if kernel.operator == "DEPTHWISE_CONV_2D" and len(scales(kernel.weights)) > 1
    )
    depthwise.weights.quantization.scale = scales(depthwise.weights)[:1]
    depthwise.weights.quantization.zeroPoint = np.zeros(1, np.int64)
    depthwise.weights.quantization.quantizedDimension = 0
    with pytest.raises(AuditMismatch, match="1 dynamic depthwise convolutions have one scale"):
        audit(write(model))


def test_outputs_are_told_apart_without_a_signature(built: Callable[[Scheme], bytes]) -> None:
    model = read(built(Float32()))
    model.signatureDefs = None
    assert audit(write(model)) == audit(built(Float32()))


@pytest.mark.parametrize("length", [0, 3, 8, 100, 5000, -1])
def test_a_truncated_file_is_unreadable(built: Callable[[Scheme], bytes], length: int) -> None:
    for scheme in (StaticInt8(calibration_images=4), STATIC):
        with pytest.raises(ArtifactUnreadable):
            audit(built(scheme)[:length])


def test_a_damaged_file_is_unreadable_or_still_an_artifact(built: Callable[[Scheme], bytes]) -> None:
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(built(STATIC))
        for position in random.integers(0, 3000, 2):
            damaged[position] = random.integers(256)
        try:
            audit(bytes(damaged))
            structure_sha256(bytes(damaged))
        except (ArtifactUnreadable, AuditMismatch):
            refused += 1
    assert refused > 10


def test_another_kind_of_file_is_unreadable() -> None:
    with pytest.raises(ArtifactUnreadable, match="TFL3"):
        audit(b"\x89PNG\r\n\x1a\n" + bytes(100))
