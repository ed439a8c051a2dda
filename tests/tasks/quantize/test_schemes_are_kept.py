"""Every scheme, by every toolchain, really is what it promises to be."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.artifact import build_artifact
from tasks.quantize.audit import FLOAT32_SMALL, SMALL_KERNEL, audit, check_audit
from tasks.quantize.builders import builder_of, builders
from tasks.quantize.ranges import Ranges, representative
from tasks.quantize.schemes import DynamicInt8, Float16, Float32, Scheme, StaticInt8
from tasks.storage import ArtifactStorage

SCHEMES: list[Scheme] = [
    Float32(),
    *(Float16(toolchain) for toolchain in ("converter", "litert_quantizer")),
    *(
        DynamicInt8(toolchain, granularity)
        for toolchain in ("converter", "litert_quantizer")
        for granularity in ("per_channel", "per_tensor")
    ),
    *(
        StaticInt8(toolchain, granularity, calibration_images=4)
        for toolchain in ("converter", "litert_quantizer")
        for granularity in ("per_channel", "per_tensor")
    ),
]
ARITHMETIC = {Float32: "float32", Float16: "float16", DynamicInt8: "dynamic_int8", StaticInt8: "int8"}
STORED = {Float32: "float32", Float16: "float16", DynamicInt8: "int8", StaticInt8: "int8"}
TOLERANCE = {Float32: 1e-5, Float16: 2e-3, DynamicInt8: 0.05, StaticInt8: 0.15}
"""Greatest difference of a score from the float32 detector's, which He-initialized weights do not hide."""

every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: "-".join(map(str, scheme.axes().values())))


def outputs(data: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return dict(interpreter.get_signature_runner()(images=representative(image)))


def test_every_registered_builder_is_tested() -> None:
    assert {(type(scheme), scheme.toolchain) for scheme in SCHEMES} == {
        (builder.scheme, builder.toolchain) for builder in builders()
    }


@every_scheme
def test_kernels_compute_as_promised(scheme: Scheme, built: Callable[[Scheme], bytes]) -> None:
    found = audit(built(scheme))
    check_audit(found, scheme)
    assert set(found.mac_share) - {FLOAT32_SMALL} == {ARITHMETIC[type(scheme)]}
    assert found.weight_share[STORED[type(scheme)]] > 0.95
    assert found.granularity == getattr(scheme, "granularity", None)
    assert (found.input_type, found.output_types) == ("float32", {"boxes": "float32", "scores": "float32"})


@every_scheme
def test_scores_stay_near_those_of_the_float_detector(
    scheme: Scheme, built: Callable[[Scheme], bytes], pixels: np.ndarray
) -> None:
    reference = outputs(built(Float32()), pixels[0])
    found = outputs(built(scheme), pixels[0])
    assert found["boxes"].shape == reference["boxes"].shape
    assert np.abs(found["scores"] - reference["scores"]).max() <= TOLERANCE[type(scheme)]
    assert (
        np.abs(found["boxes"] - reference["boxes"]).max()
        <= 5 * TOLERANCE[type(scheme)] * np.abs(reference["boxes"]).max()
    )


@every_scheme
def test_building_twice_gives_the_same_bytes(
    scheme: Scheme, built: Callable[[Scheme], bytes], detector: Detector, calibrations: dict[int, Ranges]
) -> None:
    copy = Detector.from_bytes(detector.to_bytes(), "copy")
    calibration = calibrations.get(getattr(scheme, "calibration_images", 0))
    assert builder_of(scheme).build(copy, scheme, calibration) == built(scheme)


def test_multiply_accumulates_are_those_of_the_layer_table(
    detector: Detector, built: Callable[[Scheme], bytes]
) -> None:
    table = layers(detector.spec)
    found = audit(built(Float32()))
    assert found.macs == sum(layer.macs for layer in table)
    assert found.operators["DEPTHWISE_CONV_2D"] == 13
    assert found.operators["CONV_2D"] + 13 == len(table)


def test_what_the_converter_leaves_in_float_is_counted(detector: Detector, built: Callable[[Scheme], bytes]) -> None:
    table = layers(detector.spec)
    small = [layer for layer in table if np.prod(layer.weights_shape) < SMALL_KERNEL]
    found = audit(built(DynamicInt8()))
    share = sum(layer.macs for layer in small) / sum(layer.macs for layer in table)
    assert found.mac_share[FLOAT32_SMALL] == pytest.approx(share)
    assert FLOAT32_SMALL not in audit(built(DynamicInt8("litert_quantizer"))).mac_share
    assert audit(built(Float32())).mac_share == {"float32": 1.0}


def test_a_finished_artifact_is_in_storage(
    detector: Detector, calibrations: dict[int, Ranges], tmp_path: Path, built: Callable[[Scheme], bytes]
) -> None:
    scheme = StaticInt8(calibration_images=4)
    storage = ArtifactStorage(str(tmp_path))
    artifact = build_artifact(detector, scheme, calibrations[4], storage)
    assert storage.get(artifact.sha256, artifact.format) == built(scheme)
    assert artifact.size_bytes == len(built(scheme))
    assert 0 < artifact.compressed_bytes < artifact.size_bytes
    assert artifact.audit == audit(built(scheme))


def test_calibrations_travel_as_json(calibrations: dict[int, Ranges]) -> None:
    text = json.dumps(calibrations[4])
    assert len(text) < 20_000
    assert {name: tuple(limits) for name, limits in json.loads(text).items()} == calibrations[4]
