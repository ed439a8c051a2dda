"""Artifacts: made, audited and stored."""

import zlib
from importlib.metadata import version
from typing import Any

import numpy as np

from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed, QuantsweepError, UnsupportedScheme
from tasks.quantize.audit import audit, check_audit
from tasks.quantize.builders import Builder, builder_of
from tasks.quantize.schemes import Scheme
from tasks.quantize.structure import structure_sha256
from tasks.storage import ArtifactStorage
from tasks.types import Artifact

FORMAT = "tflite"
"""Format of the artifacts that LiteRT runs."""


def build_artifact(detector: Detector, scheme: Scheme, calibration: Any | None, storage: ArtifactStorage) -> Artifact:
    """Makes an artifact, checks that it holds what its scheme promises, and stores it.

    Args:
        detector: Architecture and weights.
        scheme: How to make it.
        calibration: What `calibrate` gave for the scheme's sample, or None if the scheme needs none.
        storage: Where the file goes; an artifact that fails its audit is not stored.

    Returns:
        The artifact.

    Raises:
        UnsupportedScheme: If the toolchain cannot make the scheme.
        QuantizationFailed: If the toolchain raised an error, or the scheme needs a calibration and none is given.
        AuditMismatch: If the result is not what the scheme promises.
        ArtifactUnreadable: If the result is not a whole .tflite file.
    """
    builder = builder_of(scheme)
    if builder.calibrate is not None and calibration is None:
        raise QuantizationFailed(f"{scheme.name} needs a calibration, and none was given")
    data = _build(builder, detector, scheme, calibration)
    found = audit(data)
    check_audit(found, scheme)
    return Artifact(
        sha256=storage.put(data, FORMAT),
        format=FORMAT,
        size_bytes=len(data),
        compressed_bytes=len(zlib.compress(data, level=6)),
        structure_sha256=structure_sha256(data),
        audit=found,
    )


def calibrate(detector: Detector, scheme: Scheme, pixels: np.ndarray, sizes: tuple[int, ...]) -> dict[int, Any]:
    """Runs representative images once for all sample sizes.

    Args:
        detector: Architecture and weights.
        scheme: Any scheme of the type and toolchain to calibrate for; its own sample size does not matter.
        pixels: (N, S, S, 3) uint8 RGB, in the order of the sample.
        sizes: Sample sizes, at most N.

    Returns:
        Calibration over the first `size` images, by size: plain values, a few kilobytes each.

    Raises:
        UnsupportedScheme: If the toolchain cannot make the scheme, or the scheme needs no calibration.
        QuantizationFailed: If the toolchain raised an error.
    """
    builder = builder_of(scheme)
    if builder.calibrate is None:
        raise UnsupportedScheme(f"{scheme.name} of the toolchain {scheme.toolchain} needs no calibration")
    try:
        return builder.calibrate(detector, pixels, sizes)
    except (QuantsweepError, MemoryError):
        raise
    except Exception as error:
        raise QuantizationFailed(_first_line(builder, error)) from error


def toolchain_versions(builder: Builder) -> dict[str, str]:
    """Returns the installed version of each distribution that decides about a builder's artifacts, without imports."""
    return {name: version(name) for name in builder.packages}


def _build(builder: Builder, detector: Detector, scheme: Scheme, calibration: Any | None) -> bytes:
    try:
        return builder.build(detector, scheme, calibration)
    except (QuantsweepError, MemoryError):
        raise
    # Toolchains raise whatever their depths raise; nothing is swallowed, the cause stays attached.
    except Exception as error:
        raise QuantizationFailed(_first_line(builder, error)) from error


def _first_line(builder: Builder, error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{builder.toolchain} failed: {type(error).__name__}: {lines[0] if lines else 'no message'}"
