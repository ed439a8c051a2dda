"""Every scheme, by every toolchain, along every axis, really is what it promises to be."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.artifact import build_artifact, make, observed_by, source_of
from tasks.quantize.audit import FLOAT32_SMALL, SMALL_KERNEL, check_audit
from tasks.quantize.builders import Builder, builder_of, builders, refusals
from tasks.quantize.expectations import expectation_of
from tasks.quantize.formats.base import format_of
from tasks.quantize.kept_layers import kept_layers
from tasks.quantize.schemes import (
    BFloat16,
    DynamicInt4,
    DynamicInt8,
    Float16,
    Float32,
    Qat,
    QatInt4,
    QatInt8,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt4,
    WeightOnlyInt8,
)
from tasks.quantize.statistics import Statistics
from tasks.runtimes.base import runtime_of
from tasks.storage import ArtifactStorage
from tasks.types import Audit

VALUES: dict[str, tuple[str, ...]] = {
    "transform": ("equalized", "clustered_4", "binary"),
    "granularity": ("per_tensor",),
    "weight_algorithm": ("mse", "octav"),
    "keep_float": ("Conv2d_0", "BoxPredictor_*|Conv2d_5_depthwise", "most_sensitive_3"),
    "range_estimator": ("moving_average", "mean_min_max", "percentile_99_99", "mse", "histogram", "entropy", "fixed"),
    "symmetry": ("symmetric",),
    "input_type": ("int8", "uint8"),
    "output_type": ("int8", "uint8"),
    "memory_layout": ("contiguous",),
    "activation_type": ("int8",),
    "bias_correction": ("accurate", "none"),
}
"""Values of each axis beside its default. GPTQ and OSCAR make nothing of this detector: see test_audit."""

NEAR: dict[type[Scheme], float] = {
    Float32: 1e-5,
    Float16: 5e-3,
    BFloat16: 0.05,
    DynamicInt8: 0.05,
    WeightOnlyInt8: 0.05,
    StaticInt8: 0.15,
    StaticInt8x16: 0.05,
    DynamicInt4: 0.3,
    WeightOnlyInt4: 0.3,
    StaticInt4: 0.3,
    QatInt8: 0.15,
    QatInt4: 0.3,
}
"""Greatest difference of a score from the float32 detector's, which He-initialized weights do not hide."""


def default_of(builder: Builder) -> Scheme:
    """What a toolchain makes by default, of four images and without a training."""
    untrained: dict[str, Any] = {"epochs": 0} if issubclass(builder.scheme, Qat) else {}
    axes: dict[str, Any] = {**builder.forced, **untrained}
    scheme: Any = builder.scheme(toolchain=builder.toolchain, **axes)  # type: ignore[arg-type]
    found: Scheme = replace(scheme, calibration_images=4) if scheme.is_calibrated else scheme
    return found


def variations(builder: Builder) -> Iterator[Scheme]:
    """The default, and each other value of each axis that the toolchain can make, one axis at a time; each default
    that can be trained, trained too.
    """
    default = default_of(builder)
    yield default
    trained: dict[str, Any] = {"epochs": 2, **dict(builder.defaults)}
    if isinstance(default, Qat):
        yield replace(default, **trained)
    # What comes from the .tflite shares the work of a transform; elsewhere one scheme stands for the others.
    shares = builder.source == "converter" or builder.scheme is Float32
    axes = set(default.axes()) - (set() if shares else {"transform"})
    for axis in sorted(axes & set(VALUES)):
        # Where each build is compiled or exported, one value of an axis stands for the others.
        is_slow = builder.is_compiled or (builder.source is None and builder.framework == "torch")
        for value in VALUES[axis][: 1 if is_slow else None]:
            change: dict[str, Any] = {axis: value}
            scheme = replace(default, **change)
            if not refusals(builder, scheme):
                yield scheme


def name_of(scheme: Scheme) -> str:
    defaults = {item.name: item.default for item in fields(scheme)}
    axes = [value for axis, value in scheme.axes().items() if axis != "calibration_images" and value != defaults[axis]]
    return "-".join([scheme.name, scheme.toolchain, *(str(value) for value in axes if value != scheme.toolchain)])


def marked(scheme: Scheme) -> Any:
    """Compiling takes half a minute: the quick suite leaves it to test_torch_pt2e and test_torch_inductor.

    Clustering takes a second or two of each toolchain: of transforms it has the others. NNCF takes seconds along each
    axis, and untrained twins are what post-training quantization makes: the quick suite has their defaults.
    """
    builder = builder_of(scheme)
    takes_seconds = builder.toolchain == "nncf" or isinstance(scheme, Qat)
    is_slow = (
        builder.is_compiled
        or scheme.axes().get("transform", "").startswith("clustered")
        or (takes_seconds and scheme != default_of(builder))
    )
    marks = [pytest.mark.slow] if is_slow else []
    return pytest.param(scheme, id=name_of(scheme), marks=marks)


# What torch's `quantize_dynamic` makes is refused: see test_torch_inductor.
BUILDERS = [builder for builder in builders() if builder.toolchain != "quantize_dynamic"]
SCHEMES = sorted((scheme for builder in BUILDERS for scheme in variations(builder)), key=name_of)
PLAIN = sorted((default_of(builder) for builder in BUILDERS), key=name_of)
every_scheme = pytest.mark.parametrize("scheme", [marked(scheme) for scheme in SCHEMES])
every_builder = pytest.mark.parametrize("scheme", [marked(scheme) for scheme in PLAIN])


@cache
def audit_of(scheme: Scheme, data: bytes) -> Audit:
    return format_of(builder_of(scheme).format).audit(data)


def outputs(scheme: Scheme, data: bytes, pixels: np.ndarray) -> dict[str, np.ndarray]:
    runtime = runtime_of(builder_of(scheme).runtimes[0])
    session = runtime.open(data, runtime.settings())
    boxes, scores = session.run(pixels)
    session.close()
    return {"boxes": boxes, "scores": scores}


def arithmetics_of(scheme: Scheme, layer: str) -> set[str]:
    expected = expectation_of(scheme).of(layer)
    return {expected.arithmetic, *expected.excused}


def test_every_scheme_has_a_builder() -> None:
    from tasks.quantize.schemes import SCHEMES as BY_NAME

    assert {builder.scheme for builder in builders()} == set(BY_NAME.values())


@every_scheme
def test_kernels_compute_as_promised(scheme: Scheme, built: Callable[[Scheme], bytes], detector: Detector) -> None:
    names = [layer.name for layer in layers(detector.spec)]
    kept = kept_layers(scheme.axes().get("keep_float", "none"), names, names)
    found = audit_of(scheme, built(scheme))
    check_audit(found, scheme, kept)
    for name in names:
        allowed = {"float32"} if name in kept else arithmetics_of(scheme, name)
        # Seen from an artifact alone, a small kernel in float beside dynamic ones is the converter's doing.
        assert found.layers[name] in allowed | ({FLOAT32_SMALL} if name in kept else set())
    assert found.granularity == scheme.axes().get("granularity")
    assert found.input_type == scheme.axes().get("input_type", "float32")
    assert found.output_types == dict.fromkeys(("boxes", "scores"), scheme.axes().get("output_type", "float32"))


@every_scheme
def test_scores_stay_near_those_of_the_float_detector(
    scheme: Scheme, built: Callable[[Scheme], bytes], pixels: np.ndarray
) -> None:
    reference = outputs(Float32(), built(Float32(transform=scheme.transform)), pixels[:1])
    found = outputs(scheme, built(scheme), pixels[:1])
    assert found["boxes"].shape == reference["boxes"].shape
    assert np.abs(found["scores"] - reference["scores"]).max() <= NEAR[type(scheme)]
    assert (
        np.abs(found["boxes"] - reference["boxes"]).max() <= 5 * NEAR[type(scheme)] * np.abs(reference["boxes"]).max()
    )


@every_builder
def test_building_twice_gives_the_same(
    scheme: Scheme,
    built: Callable[[Scheme], bytes],
    source: Callable[..., bytes],
    statistics: Callable[..., Statistics],
    detector: Detector,
    pixels: np.ndarray,
) -> None:
    copy, before = Detector.from_bytes(detector.to_bytes(), "copy"), source_of(scheme)
    foundation = (
        source("none", before.toolchain) if before else None,
        statistics(4) if observed_by(scheme) else None,
    )
    again = make(copy, scheme, *foundation, pixels=pixels[:4])
    if builder_of(scheme).is_compiled:
        form = format_of(builder_of(scheme).format)
        assert form.structure(again) == form.structure(built(scheme))
    else:
        assert again == built(scheme)


@every_builder
def test_multiply_accumulates_are_those_of_the_layer_table(
    scheme: Scheme, detector: Detector, built: Callable[[Scheme], bytes]
) -> None:
    assert audit_of(scheme, built(scheme)).macs == sum(layer.macs for layer in layers(detector.spec))


def test_what_the_converter_leaves_in_float_is_counted(detector: Detector, built: Callable[[Scheme], bytes]) -> None:
    table = layers(detector.spec)
    small = [layer for layer in table if np.prod(layer.weights_shape) < SMALL_KERNEL]
    found = audit_of(DynamicInt8(), built(DynamicInt8()))
    share = sum(layer.macs for layer in small) / sum(layer.macs for layer in table)
    assert found.mac_share[FLOAT32_SMALL] == pytest.approx(share)
    assert {name for name, arithmetic in found.layers.items() if arithmetic == FLOAT32_SMALL} == {
        layer.name for layer in small
    }
    whole = DynamicInt8(toolchain="litert_quantizer")
    assert FLOAT32_SMALL not in audit_of(whole, built(whole)).mac_share


@pytest.mark.parametrize("transform", ["clustered_4", "binary"])
@pytest.mark.parametrize("scheme", [Float32(), Float16(), StaticInt8(calibration_images=4)], ids=name_of)
def test_codebooks_outlive_quantization(scheme: Any, transform: str, built: Callable[[Scheme], bytes]) -> None:
    changed = replace(scheme, transform=transform)
    assert audit_of(changed, built(changed)).codebook_size == {"clustered_4": 4, "binary": 2}[transform]
    assert audit_of(scheme, built(scheme)).codebook_size > 100


def test_a_finished_artifact_is_in_storage(
    detector: Detector,
    source: Callable[[str], bytes],
    statistics: Callable[..., Statistics],
    tmp_path: Path,
    built: Callable[[Scheme], bytes],
) -> None:
    scheme = StaticInt8(calibration_images=4)
    storage = ArtifactStorage(str(tmp_path))
    artifact = build_artifact(detector, scheme, storage, source("none"), statistics(4))
    assert storage.get(artifact.sha256, artifact.format) == built(scheme)
    assert artifact.size_bytes == len(built(scheme))
    assert 0 < artifact.compressed_bytes < artifact.size_bytes
    assert artifact.audit == audit_of(scheme, built(scheme))
