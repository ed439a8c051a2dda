"""Eager artifacts are the detector's file with a memory layout, and the audit reads what torch exports of them."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.detector import torch_model
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, AuditMismatch
from tasks.quantize.artifact import make
from tasks.quantize.formats.torch_safetensors import audit, structure_sha256
from tasks.quantize.schemes import Float32
from tasks.quantize.transforms.base import transformed
from tasks.runtimes.torch import eager_file

LAYOUTS = ("channels_last", "contiguous")
EAGER = Float32(toolchain="eager")


def test_every_convolution_computes_in_float32(built: Callable[..., bytes], detector: Detector) -> None:
    found = audit(built(EAGER))
    table = layers(detector.spec)
    assert found.mac_share == found.weight_share == {"float32": 1.0}
    assert found.layers == {layer.name: "float32" for layer in table}
    assert found.macs == sum(layer.macs for layer in table)
    assert (found.input_type, found.output_types) == ("float32", {"boxes": "float32", "scores": "float32"})
    assert found.operators["aten.conv2d.default"] == len(table)
    assert (found.granularity, found.symmetric_activations) == (None, None)


def test_each_layout_has_its_own_bytes_and_structure(built: Callable[..., bytes]) -> None:
    made = [built(replace(EAGER, memory_layout=layout)) for layout in LAYOUTS]
    assert len(set(made)) == len({structure_sha256(data) for data in made}) == 2


def test_building_twice_gives_the_same_bytes(built: Callable[..., bytes], detector: Detector) -> None:
    assert make(Detector.from_bytes(detector.to_bytes(), "copy"), EAGER) == built(EAGER)


def test_weights_are_not_structure_and_show_in_the_codebook(built: Callable[..., bytes]) -> None:
    clustered = built(replace(EAGER, transform="clustered_4"))
    assert audit(clustered).codebook_size == 4
    assert structure_sha256(clustered) == structure_sha256(built(EAGER))


def test_caps_are_structure(built: Callable[..., bytes], detector: Detector) -> None:
    even = eager_file(transformed(detector, "equalized"), "channels_last")
    inner = [layer for layer in layers(detector.spec) if layer.kind != "head"]
    assert audit(even).operators["aten.minimum.default"] == len(inner)
    assert structure_sha256(even) != structure_sha256(built(EAGER))


def test_a_layer_in_half_precision_is_found(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> None:
    class Broken(torch_model.Convolution):
        def __init__(self, layer, *weights):
            super().__init__(layer, *weights)
            if layer.name == "BoxPredictor_1_boxes":
                self.half()

        def forward(self, images):
            return super().forward(images.to(self.weight.dtype)).float()

    monkeypatch.setattr(torch_model, "Convolution", Broken)
    with pytest.raises(AuditMismatch, match="BoxPredictor_1_boxes"):
        make(detector, EAGER)


@pytest.mark.parametrize("read", [audit, structure_sha256])
def test_other_content_is_unreadable(read: Callable[[bytes], object], detector: Detector) -> None:
    data = eager_file(detector, "contiguous")
    for content in (b"", b"TFL3" * 10, data[:-4], detector.to_bytes()):
        with pytest.raises(ArtifactUnreadable):
            read(content)
