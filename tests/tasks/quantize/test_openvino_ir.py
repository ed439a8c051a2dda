"""The audit tells what the CPU really executes; the structure holds what latency depends on and no more."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, AuditMismatch
from tasks.quantize.artifact import make
from tasks.quantize.audit import check_audit
from tasks.quantize.formats.openvino_ir import audit, structure_sha256
from tasks.quantize.openvino_archive import packed, unpacked
from tasks.quantize.openvino_graph import activation_form
from tasks.quantize.schemes import Float32
from tasks.runtimes.openvino import imported, opened
from tests.tasks.quantize.openvino_builds import float32_onnx, int8_archive, scheme
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector


def rewritten(tmp_path, data: bytes, change: Callable[[Any], None]) -> bytes:
    model = opened(data)
    change(model)
    imported().serialize(model, tmp_path / "model.xml")
    return packed((tmp_path / "model.xml").read_bytes(), (tmp_path / "model.bin").read_bytes())


def widen(model: Any) -> None:
    """Takes the quantization of all activations out of a graph."""
    for operation in model.get_ordered_ops():
        if activation_form(operation):
            operation.output(0).replace(operation.input_value(0))


def test_integer_weights_that_are_executed_in_float_are_no_int8(tmp_path):
    data = rewritten(tmp_path, int8_archive(), widen)
    found = audit(data)
    assert found.mac_share == {"weight_only_int8": 1.0}
    assert found.weight_share == {"int8": 1.0}
    assert found.symmetric_activations is None
    with pytest.raises(AuditMismatch, match=r"100.00% of its multiply-accumulates are weight_only_int8, not int8"):
        check_audit(found, scheme())


def test_a_float_graph_is_float(tmp_path):
    found = audit(rewritten(tmp_path, float32_onnx(), lambda model: None))
    assert found.mac_share == found.weight_share == {"float32": 1.0}
    assert found.granularity is None
    check_audit(found, Float32())


def test_one_scale_written_for_each_channel_is_seen_as_per_channel_only_where_scales_differ():
    assert audit(int8_archive()).granularity == "per_channel"
    assert audit(int8_archive(granularity="per_tensor")).granularity == "per_tensor"


@pytest.mark.slow
def test_clusters_are_counted_in_the_stored_integers():
    assert audit(int8_archive(transform="binary")).codebook_size == 2
    assert audit(int8_archive()).codebook_size > 2


def test_the_operators_that_work_are_counted():
    found = audit(int8_archive()).operators
    assert found["Convolution"] + found["GroupConvolution"] == 47
    assert found["GroupConvolution"] == 13
    assert not {"Constant", "Parameter", "Result"} & set(found)


def test_other_weights_have_the_same_structure():
    detector = tiny_detector()
    other = Detector(detector.spec, {name: tensor * np.float32(0.9) for name, tensor in detector.tensors.items()})
    source = make(other, Float32(toolchain="onnx"))
    data = make(other, scheme(symmetry="symmetric"), source, pixels=pixels(4))
    assert data != int8_archive(symmetry="symmetric")
    assert structure_sha256(data) == structure_sha256(int8_archive(symmetry="symmetric"))


@pytest.mark.parametrize(
    "axes",
    [
        {"granularity": "per_tensor"},
        {"keep_float": "Conv2d_0"},
        pytest.param({"transform": "equalized"}, marks=pytest.mark.slow),
        {"symmetry": "symmetric"},
    ],
    ids=str,
)
def test_what_is_executed_otherwise_has_another_structure(axes):
    assert structure_sha256(int8_archive(**axes)) != structure_sha256(int8_archive())


@pytest.mark.slow
def test_another_image_size_has_another_structure():
    detector = tiny_detector()
    small = Detector(dataclasses.replace(detector.spec, image_size=64), detector.tensors)
    data = make(small, scheme(), make(small, Float32(toolchain="onnx")), pixels=pixels(4)[:, :64, :64])
    assert structure_sha256(data) != structure_sha256(int8_archive())


def test_names_are_no_part_of_the_structure(tmp_path):
    def rename(model: Any) -> None:
        for place, operation in enumerate(model.get_ordered_ops()):
            operation.set_friendly_name(f"operator {place}")

    data = rewritten(tmp_path, int8_archive(), rename)
    assert structure_sha256(data) == structure_sha256(int8_archive())
    assert audit(data).layers == {}


def test_a_damaged_archive_is_unreadable():
    graph, weights = unpacked(int8_archive())
    for data in (b"", int8_archive()[:-100], packed(graph[:5000], weights), packed(graph, weights[:1000])):
        for read in (audit, structure_sha256):
            with pytest.raises(ArtifactUnreadable):
                read(data)
