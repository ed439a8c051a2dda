"""Keras artifacts are the detector's file with a policy, and the audit reads what the policy does."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.detector import keras_model
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector, with_metadata
from tasks.errors import ArtifactUnreadable, AuditMismatch
from tasks.identity import sha256_of
from tasks.quantize.artifact import make
from tasks.quantize.formats.safetensors import audit, structure_sha256
from tasks.quantize.schemes import BFloat16, Float16, Float32, Scheme
from tasks.quantize.transforms.base import transformed

SCHEMES = {
    Float32(toolchain="keras"): "float32",
    Float16(toolchain="keras"): "float16",
    BFloat16(): "bfloat16",
}  # fmt: skip

every_scheme = pytest.mark.parametrize(("scheme", "arithmetic"), SCHEMES.items(), ids=SCHEMES.values())


@every_scheme
def test_every_convolution_computes_as_promised(
    scheme: Scheme, arithmetic: str, built: Callable[[Scheme], bytes], detector: Detector
) -> None:
    found = audit(built(scheme))
    table = layers(detector.spec)
    assert found.mac_share == {arithmetic: 1.0}
    assert found.layers == {layer.name: arithmetic for layer in table}
    assert found.weight_share == {"float32": 1.0}
    assert found.macs == sum(layer.macs for layer in table)
    assert (found.input_type, found.output_types) == ("float32", {"boxes": "float32", "scores": "float32"})
    assert found.operators["Conv2D"] + found.operators["DepthwiseConv2dNative"] == len(table)


def test_the_float32_artifact_is_the_detector_itself(built: Callable[[Scheme], bytes], detector: Detector) -> None:
    assert sha256_of(built(Float32(toolchain="keras"))) == detector.sha256


def test_each_policy_has_its_own_bytes_and_structure(built: Callable[[Scheme], bytes]) -> None:
    assert len({built(scheme) for scheme in SCHEMES}) == 3
    assert len({structure_sha256(built(scheme)) for scheme in SCHEMES}) == 3


@every_scheme
def test_building_twice_gives_the_same_bytes(
    scheme: Scheme, arithmetic: str, built: Callable[[Scheme], bytes], detector: Detector
) -> None:
    assert make(Detector.from_bytes(detector.to_bytes(), "copy"), scheme) == built(scheme)


def test_transforms_come_first_and_show_in_the_codebook(built: Callable[[Scheme], bytes]) -> None:
    clustered = built(Float32(toolchain="keras", transform="clustered_4"))
    assert audit(clustered).codebook_size == 4
    assert audit(built(Float32(toolchain="keras", transform="binary"))).codebook_size == 2
    assert structure_sha256(clustered) == structure_sha256(built(Float32(toolchain="keras")))


def test_caps_are_a_minimum_in_graph_and_structure(built: Callable[[Scheme], bytes], detector: Detector) -> None:
    even = built(Float32(toolchain="keras", transform="equalized"))
    inner = [layer for layer in layers(detector.spec) if layer.kind != "head"]
    assert audit(even).operators["Minimum"] == len(inner)
    assert structure_sha256(even) != structure_sha256(built(Float32(toolchain="keras")))
    other = transformed(Detector(detector.spec, {**detector.tensors, **_halved(detector)}), "equalized")
    assert other.to_bytes() != even
    assert structure_sha256(other.to_bytes()) == structure_sha256(even)


def test_class_ids_and_names_are_not_structure(detector: Detector) -> None:
    spec = replace(detector.spec, class_ids=(0, 2, 4, 6, 8), class_names=("none", "a", "b", "c", "d"))
    other = Detector(spec, detector.tensors)
    assert structure_sha256(other.to_bytes()) == structure_sha256(detector.to_bytes())


def test_a_float32_file_is_no_float16_artifact(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> None:
    monkeypatch.setattr("tasks.quantize.keras_build.keras_file", lambda found, policy: found.to_bytes())
    with pytest.raises(AuditMismatch, match="float32, not float16"):
        make(detector, Float16(toolchain="keras"))


def test_one_layer_left_in_float32_is_found(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> None:
    convolution = keras_model._convolution

    def broken(layer, cap, policy):
        return convolution(layer, cap, "float32" if layer.name == "BoxPredictor_1_boxes" else policy)

    monkeypatch.setattr(keras_model, "_convolution", broken)
    with pytest.raises(AuditMismatch, match="BoxPredictor_1_boxes"):
        make(detector, BFloat16())


@pytest.mark.parametrize("read", [audit, structure_sha256])
def test_other_content_is_unreadable(read: Callable[[bytes], object], detector: Detector) -> None:
    data = detector.to_bytes()
    for content in (b"", b"TFL3" * 10, data[:-4], with_metadata(data, "quantsweep.keras_policy", "float8")):
        with pytest.raises(ArtifactUnreadable):
            read(content)


def _halved(detector: Detector) -> dict:
    return {key: tensor / 2 for key, tensor in detector.tensors.items() if key.endswith("/weights")}
