"""Artifacts: made, audited and stored."""

import zlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed, QuantsweepError, UnsupportedScheme
from tasks.quantize.audit import check_audit
from tasks.quantize.builders import Builder, Material, builder_of
from tasks.quantize.formats.base import format_of
from tasks.quantize.kept_layers import kept_layers
from tasks.quantize.observe import OBSERVER
from tasks.quantize.qat import check_ranges, clipped, first_ranges, trainer_packages
from tasks.quantize.schemes import Float32, Qat, Scheme
from tasks.quantize.statistics import Statistics
from tasks.quantize.transforms.base import transform_of
from tasks.storage import ArtifactStorage
from tasks.training.learner import Ranges
from tasks.types import Artifact, Audit


def source_of(scheme: Scheme) -> Float32 | None:
    """Tells which artifact must be made before another one.

    Args:
        scheme: What is to be made.

    Returns:
        The float32 artifact that it starts from, or None if it starts from the detector.
    """
    toolchain: Any = builder_of(scheme).source
    return Float32(toolchain=toolchain, transform=scheme.transform) if toolchain else None


def observed_by(scheme: Scheme) -> Float32 | None:
    """Tells which artifact's activations the statistics for another one are of.

    Args:
        scheme: What is to be made.

    Returns:
        The float32 .tflite, the same for every toolchain, or None if the scheme needs no statistics.
    """
    needs_statistics = scheme.is_calibrated and builder_of(scheme).calibration == "statistics"
    return Float32(transform=scheme.transform) if needs_statistics else None


def make(
    detector: Detector,
    scheme: Scheme,
    source: bytes | None = None,
    statistics: Statistics | None = None,
    ranking: Sequence[str] = (),
    pixels: np.ndarray | None = None,
    ranges: Ranges | None = None,
) -> bytes:
    """Makes the content of an artifact, and checks that it holds what its scheme promises.

    Args:
        detector: Architecture and weights with the scheme's transform done, so that no worker needs the framework of
            the transform beside that of the builder. If the scheme is trained, the trained one.
        scheme: How to make it.
        source: Content of the artifact that `source_of` names, if it names one.
        statistics: Of the activations of the artifact that `observed_by` names, over the scheme's sample, if it names
            one and no ranges are given.
        ranking: The layers, the most sensitive first, if the scheme needs a ranking.
        pixels: (N, S, S, 3) uint8 RGB, the images of the scheme's sample, if its builder is calibrated with images.
        ranges: Ranges of activations that the detector was trained with, if the scheme is trained.

    Returns:
        Content of the file.

    Raises:
        UnsupportedScheme: If the toolchain cannot make the scheme, or its `keep_float` does not fit the detector.
        QuantizationFailed: If the toolchain raised an error, or something that it needs is missing.
        AuditMismatch: If the result is not what the scheme promises.
        ArtifactUnreadable: If the result is damaged.
    """
    return _audited(detector, scheme, source, statistics, ranking, pixels, ranges)[0]


def build_artifact(
    detector: Detector,
    scheme: Scheme,
    storage: ArtifactStorage,
    source: bytes | None = None,
    statistics: Statistics | None = None,
    ranking: Sequence[str] = (),
    pixels: np.ndarray | None = None,
    ranges: Ranges | None = None,
) -> Artifact:
    """Makes an artifact as `make` does, and stores it.

    Args:
        detector: See `make`, and so for the others.
        scheme: How to make it.
        storage: Where the file goes; an artifact that fails its audit is not stored.
        source: Content of the float32 artifact.
        statistics: Of activations.
        ranking: The layers by sensitivity.
        pixels: Calibration images.
        ranges: Ranges of activations that training found.

    Returns:
        The artifact.

    Raises:
        TaskFailure: As `make`.
    """
    data, found = _audited(detector, scheme, source, statistics, ranking, pixels, ranges)
    form = format_of(builder_of(scheme).format)
    return Artifact(
        sha256=storage.put(data, form.name),
        format=form.name,
        size_bytes=len(data),
        compressed_bytes=len(zlib.compress(data, level=6)),
        structure_sha256=form.structure(data),
        audit=found,
    )


def toolchain_versions(scheme: Scheme) -> dict[str, str]:
    """Returns the installed version of each distribution that decides about an artifact's bytes, without imports."""
    return {name: version(name) for name in sorted(toolchain_packages(scheme))}


def toolchain_packages(scheme: Scheme) -> set[str]:
    """Returns the names of the distributions that decide about an artifact's bytes, those of a training included."""
    names = {"quantsweep", *builder_of(scheme).packages, *trainer_packages(scheme)}
    transform = transform_of(scheme.transform)
    names |= set(transform.packages) if transform else set()
    source = source_of(scheme)
    return names | (toolchain_packages(source) if source else set()) | observation_packages(scheme)


def observation_packages(scheme: Scheme) -> set[str]:
    """Returns the names of the distributions that decide about the statistics of a scheme; none if it needs none."""
    observed = observed_by(scheme)
    return {OBSERVER, *toolchain_packages(observed)} if observed else set()


def _audited(
    detector: Detector,
    scheme: Scheme,
    source: bytes | None,
    statistics: Statistics | None,
    ranking: Sequence[str],
    pixels: np.ndarray | None,
    ranges: Ranges | None,
) -> tuple[bytes, Audit]:
    builder = builder_of(scheme)
    material = _material(builder, detector, scheme, source, statistics, ranking, pixels, ranges)
    data = _build(builder, material, scheme)
    found = format_of(builder.format).audit(data)
    check_audit(found, scheme, material.kept_float)
    return data, found


def _material(
    builder: Builder,
    detector: Detector,
    scheme: Scheme,
    source: bytes | None,
    statistics: Statistics | None,
    ranking: Sequence[str],
    pixels: np.ndarray | None,
    ranges: Ranges | None,
) -> Material:
    wants_images = scheme.is_calibrated and builder.calibration == "images"
    needed = {
        "the float32 artifact": builder.source is not None and source is None,
        "a trained detector": scheme.is_trained and not ranges,
        "statistics of calibration images": (
            scheme.is_calibrated and not (wants_images or scheme.is_trained or ranges) and statistics is None
        ),
        "calibration images": wants_images and (pixels is None or not len(pixels)),
        "a ranking of the layers": scheme.needs_ranking and not ranking,
    }
    missing = [what for what, is_missing in needed.items() if is_missing]
    if missing:
        raise QuantizationFailed(f"{scheme.name} needs {' and '.join(missing)}, and none was given")
    names = [layer.name for layer in layers(detector.spec)]
    try:
        kept = kept_layers(scheme.axes().get("keep_float", "none"), names, ranking)
    except ValueError as error:
        raise UnsupportedScheme(str(error)) from error
    if isinstance(scheme, Qat):
        ranges = ranges or first_ranges(scheme, detector, statistics)
        check_ranges(ranges, detector)
        detector = detector if scheme.is_trained else clipped(scheme, detector, kept)
    return Material(
        detector,
        source if builder.source else None,
        statistics,
        pixels if wants_images else None,
        kept,
        ranges if isinstance(scheme, Qat) else None,
    )


def _build(builder: Builder, material: Material, scheme: Scheme) -> bytes:
    try:
        return builder.build(material, scheme)
    except (QuantsweepError, MemoryError):
        raise
    # Toolchains raise whatever their depths raise; nothing is swallowed, the cause stays attached.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        what = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        raise QuantizationFailed(f"{builder.toolchain} failed: {what}") from error
