"""Artifacts that are not what their scheme promises are caught."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, AuditMismatch
from tasks.quantize import builders
from tasks.quantize.artifact import build_artifact
from tasks.quantize.audit import audit, check_audit
from tasks.quantize.builders import builder_of
from tasks.quantize.flatbuffer import read, scales, write
from tasks.quantize.kernels import kernels
from tasks.quantize.ranges import Ranges, ranges_for
from tasks.quantize.schemes import (
    BFloat16,
    DynamicInt4,
    DynamicInt8,
    Float16,
    Float32,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt4,
    WeightOnlyInt8,
)
from tasks.quantize.statistics import Statistics
from tasks.quantize.structure import structure_sha256
from tasks.storage import ArtifactStorage
from tests.tasks.quantize.test_schemes_are_kept import PLAIN, audit_of, every_builder, name_of

STATIC = StaticInt8(toolchain="litert_quantizer", calibration_images=4)
CONVERTED = StaticInt8(calibration_images=4)
DYNAMIC = DynamicInt8(toolchain="litert_quantizer")


class Broken:
    """Puts a builder that gives something else in the place of a scheme's own, and builds the scheme."""

    def __init__(self, detector: Detector, source: bytes, statistics: Statistics, folder: Path) -> None:
        self.detector, self.source, self.statistics = detector, source, statistics
        self.storage = ArtifactStorage(str(folder))
        self.ranking = [layer.name for layer in layers(detector.spec)]

    def build(self, scheme: Scheme, data: bytes) -> None:
        broken = replace(builder_of(scheme), build=lambda *_: data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(builders._BUILDERS, (type(scheme), scheme.toolchain), broken)
            build_artifact(self.detector, scheme, self.storage, self.source, self.statistics, self.ranking)


@pytest.fixture
def broken(
    detector: Detector, source: Callable[..., bytes], statistics: Callable[..., Statistics], tmp_path: Path
) -> Broken:
    return Broken(detector, source(), statistics(4), tmp_path)


@pytest.mark.parametrize("scheme", [CONVERTED, STATIC, DYNAMIC, DynamicInt8()], ids=name_of)
def test_a_float_model_in_place_of_a_quantized_one_is_no_artifact(
    scheme: Scheme, broken: Broken, tmp_path: Path
) -> None:
    with pytest.raises(AuditMismatch, match=r"100.00% of its multiply-accumulates are float32, not (dynamic_)?int8"):
        broken.build(scheme, broken.source)
    assert not list(tmp_path.iterdir())


def test_one_head_left_in_float_is_caught_and_named(broken: Broken, built: Callable[[Scheme], bytes]) -> None:
    with pytest.raises(AuditMismatch, match=r"% of its multiply-accumulates are float32, .*\(BoxPredictor_0_scores\)"):
        broken.build(CONVERTED, built(replace(CONVERTED, keep_float="BoxPredictor_0_scores")))


@pytest.mark.parametrize("scheme", [CONVERTED, STATIC, DYNAMIC, DynamicInt8()], ids=name_of)
def test_the_wrong_granularity_is_caught(scheme: Any, broken: Broken, built: Callable[[Scheme], bytes]) -> None:
    with pytest.raises(AuditMismatch, match="its granularity is per_tensor, not per_channel"):
        broken.build(scheme, built(replace(scheme, granularity="per_tensor")))
    with pytest.raises(AuditMismatch, match="its granularity is per_channel, not per_tensor"):
        broken.build(replace(scheme, granularity="per_tensor"), built(scheme))


@pytest.mark.parametrize("end", ["input", "output"])
def test_the_wrong_element_type_of_an_end_is_caught(end: str, broken: Broken, built: Callable[[Scheme], bytes]) -> None:
    integer: dict[str, Any] = {f"{end}_type": "uint8"}
    what = {"input": "the input is {}, not {}", "output": "boxes is {}, not {}; scores is {}, not {}"}[end]
    with pytest.raises(AuditMismatch, match=what.format(*["uint8", "float32"] * 2)):
        broken.build(CONVERTED, built(replace(CONVERTED, **integer)))
    with pytest.raises(AuditMismatch, match=what.format(*["float32", "uint8"] * 2)):
        broken.build(replace(CONVERTED, **integer), built(CONVERTED))


def test_a_kept_layer_that_was_quantized_is_named(broken: Broken, built: Callable[[Scheme], bytes]) -> None:
    wanted = replace(CONVERTED, keep_float="Conv2d_0|Extra_0_1x1")
    with pytest.raises(AuditMismatch, match=r": Extra_0_1x1: int8 arithmetic, not float32$"):
        broken.build(wanted, built(replace(CONVERTED, keep_float="Conv2d_0")))


def test_layers_in_float_that_were_not_to_be_kept_are_named(broken: Broken, built: Callable[[Scheme], bytes]) -> None:
    wanted, made = replace(CONVERTED, keep_float="Conv2d_0"), replace(CONVERTED, keep_float="most_sensitive_6")
    named = "Conv2d_1_depthwise, Conv2d_1_pointwise, Conv2d_2_depthwise and 2 more"
    with pytest.raises(AuditMismatch, match=f": {named}: float32 arithmetic, not int8$"):
        broken.build(wanted, built(made))


def test_layers_whose_names_are_lost_are_not_taken_for_kept(broken: Broken, built: Callable[[Scheme], bytes]) -> None:
    wanted = replace(CONVERTED, keep_float="Conv2d_0")

    model = read(built(wanted))
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"tensor {number}"
    with pytest.raises(AuditMismatch, match="have lost the names of layers, so that nothing shows that Conv2d_0"):
        broken.build(wanted, write(model))


@pytest.mark.parametrize("scheme", [CONVERTED, STATIC], ids=name_of)
def test_asymmetric_activations_are_not_symmetric_ones(
    scheme: StaticInt8, broken: Broken, built: Callable[[Scheme], bytes]
) -> None:
    wanted = replace(STATIC, symmetry="symmetric")
    with pytest.raises(AuditMismatch, match="its activations have zero points other than 0"):
        broken.build(wanted, built(scheme))


@pytest.mark.parametrize("transform", ["clustered_4", "binary"])
@pytest.mark.parametrize("scheme", [CONVERTED, Float32()], ids=name_of)
def test_a_transform_that_was_not_done_is_caught(
    scheme: Any, transform: str, broken: Broken, built: Callable[[Scheme], bytes]
) -> None:
    left = {"clustered_4": 4, "binary": 2}[transform]
    with pytest.raises(AuditMismatch, match=rf"a channel has \d\d+ distinct weights, where {transform} leaves {left}"):
        broken.build(replace(scheme, transform=transform), built(scheme))


CLAIMED = [
    Float32(), Float16(), BFloat16(), DynamicInt8(), DynamicInt4(), WeightOnlyInt8(), WeightOnlyInt4(), StaticInt8(),
    StaticInt4(), StaticInt8x16(),
]  # fmt: skip


@pytest.mark.parametrize("claimed", CLAIMED, ids=lambda claimed: claimed.name)
def test_a_scheme_is_not_taken_for_another(claimed: Scheme, built: Callable[[Scheme], bytes]) -> None:
    for scheme in (scheme for scheme in PLAIN if not builder_of(scheme).is_compiled):
        # What is trained holds what the same without a training does.
        if not isinstance(scheme, type(claimed)):
            with pytest.raises(
                AuditMismatch, match=f"not {claimed.name}: .*(multiply-accumulates are|arithmetic, not)"
            ):
                check_audit(audit_of(scheme, built(scheme)), claimed)


def test_weights_in_half_precision_are_not_half_precision_arithmetic(built: Callable[[Scheme], bytes]) -> None:
    of_keras = Float16(toolchain="keras")
    with pytest.raises(AuditMismatch, match=r"100.00% of its weights are float16, not float32"):
        check_audit(audit_of(Float16(), built(Float16())), of_keras)
    with pytest.raises(AuditMismatch, match=r"100.00% of its weights are float32, not float16"):
        check_audit(audit_of(of_keras, built(of_keras)), Float16())


def test_small_kernels_in_float_are_excused_for_the_converter_only(built: Callable[[Scheme], bytes]) -> None:
    found = audit(built(DynamicInt8()))
    check_audit(found, DynamicInt8())
    with pytest.raises(AuditMismatch, match="float32_small, not dynamic_int8"):
        check_audit(found, DYNAMIC)


def quantizer_of(model: bytes, algorithm: str, dynamic: bool) -> Any:
    """The library by itself, without what the builders add."""
    from litert_quantizer import Quantizer
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import AlgorithmName

    quantizer = Quantizer(model)
    add = quantizer.add_dynamic_config if dynamic else quantizer.add_static_config
    bits: dict[str, int] = {"num_bits": 8} if dynamic else {"activation_num_bits": 8, "weight_num_bits": 8}
    add(".*", TFLOperationName.ALL_SUPPORTED, **bits, algorithm_key=AlgorithmName[algorithm])
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return quantizer


def library_statistics(ranges: Ranges) -> dict[str, dict[str, np.ndarray]]:
    return {name: {"min": np.array([[[[low]]]]), "max": np.array([[[[high]]]])} for name, (low, high) in ranges.items()}


@pytest.mark.parametrize("algorithm", ["GPTQ", "OSCAR"])
@pytest.mark.parametrize("scheme", [STATIC, DYNAMIC], ids=name_of)
def test_algorithms_that_quietly_leave_convolutions_float_are_caught(
    broken: Broken, algorithm: str, scheme: Scheme
) -> None:
    quantizer = quantizer_of(broken.source, algorithm, dynamic=scheme is DYNAMIC)
    ranges = library_statistics(ranges_for(STATIC, broken.source, broken.statistics))
    result = bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)
    with pytest.raises(AuditMismatch, match=r"100.00% of its multiply-accumulates are float32"):
        broken.build(scheme, result)


@pytest.mark.parametrize("algorithm", ["gptq", "oscar"])
@pytest.mark.parametrize("scheme", [STATIC, DYNAMIC], ids=name_of)
def test_our_own_builder_of_such_an_algorithm_ends_the_same_way(
    scheme: Any, algorithm: str, built: Callable[[Scheme], bytes]
) -> None:
    with pytest.raises(AuditMismatch, match=r"100.00% of its multiply-accumulates are float32"):
        built(replace(scheme, weight_algorithm=algorithm))


@pytest.mark.parametrize("toolchain", ["converter", "litert_quantizer"])
def test_depthwise_scales_that_litert_would_read_out_of_bounds_are_caught(
    toolchain: Any, built: Callable[[Scheme], bytes]
) -> None:
    model = read(built(DynamicInt8(toolchain=toolchain, granularity="per_tensor")))
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


@every_builder
def test_every_layer_has_its_arithmetic(scheme: Scheme, detector: Detector, built: Callable[[Scheme], bytes]) -> None:
    found = audit_of(scheme, built(scheme))
    assert set(found.layers) == {layer.name for layer in layers(detector.spec)}
    table = {layer.name: layer.macs for layer in layers(detector.spec)}
    for arithmetic, share in found.mac_share.items():
        macs = sum(table[name] for name, other in found.layers.items() if other == arithmetic)
        assert macs / sum(table.values()) == pytest.approx(share)


def test_outputs_are_told_apart_without_a_signature(built: Callable[[Scheme], bytes]) -> None:
    model = read(built(Float32()))
    model.signatureDefs = None
    assert audit(write(model)) == audit(built(Float32()))


@pytest.mark.parametrize("length", [0, 3, 8, 100, 5000, -1])
def test_a_truncated_file_is_unreadable(built: Callable[[Scheme], bytes], length: int) -> None:
    for scheme in (CONVERTED, STATIC):
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
