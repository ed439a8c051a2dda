"""Class channels that were never trained keep their biases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.detector.weights import Detector
from tasks.errors import AuditMismatch
from tasks.quantize.audit import audit
from tasks.quantize.flatbuffer import constant, read, scales
from tasks.quantize.float_flatbuffer import float_flatbuffer
from tasks.quantize.kernels import Kernel, kernels
from tasks.quantize.litert_quantizer import weight_ranges
from tasks.quantize.ranges import Ranges
from tasks.quantize.schemes import Scheme, StaticInt8
from tests.tasks.quantize.conftest import UNTRAINED
from tests.tasks.quantize.test_audit import quantizer_of, statistics_of
from tests.tasks.quantize.test_schemes_are_kept import SCHEMES

STATIC = [scheme for scheme in SCHEMES if isinstance(scheme, StaticInt8)]


def bias(model: Any, kernel: Kernel, kind: Any) -> np.ndarray:
    return np.frombuffer(constant(model, kernel.bias) or b"", kind)


@pytest.mark.parametrize("scheme", STATIC, ids=lambda scheme: f"{scheme.toolchain}-{scheme.granularity}")
def test_every_bias_comes_back_within_one_step(
    scheme: Scheme, detector: Detector, built: Callable[[Scheme], bytes]
) -> None:
    reference, model = read(float_flatbuffer(detector)), read(built(scheme))
    pairs = list(zip(kernels(reference), kernels(model), strict=True))
    assert len(pairs) == 47
    for before, after in pairs:
        step = scales(after.activations) * scales(after.weights)
        stored = bias(model, after, np.int32)
        assert np.abs(stored.astype(np.int64)).max() <= 2**30 * 1.001
        # float32 holds 24 bits of the bias, so a large one is off by its rounding as well.
        rounding = np.abs(bias(reference, before, np.float32)) * 2.0**-22
        assert (np.abs(stored * step - bias(reference, before, np.float32)) <= step + rounding).all()


def test_without_the_floor_the_library_clips_biases_and_the_audit_says_so(
    detector: Detector, calibrations: dict[int, Ranges]
) -> None:
    quantizer = quantizer_of(detector, "MIN_MAX_UNIFORM_QUANT", dynamic=False)
    result = quantizer.quantize(statistics_of(calibrations[4]), enable_progress_report=False).quantized_model
    with pytest.raises(AuditMismatch, match=f"{UNTRAINED} biases do not fit 32 bits"):
        audit(bytes(result))


def test_the_floor_touches_untrained_channels_only(detector: Detector, calibrations: dict[int, Ranges]) -> None:
    model = float_flatbuffer(detector)
    bounds = weight_ranges(model, calibrations[4], "per_channel")
    tree = read(model)
    raised = 0
    for kernel in kernels(tree):
        weights = np.frombuffer(constant(tree, kernel.weights) or b"", np.float32).reshape(kernel.weights.shape)
        others = tuple(axis for axis in range(4) if axis != kernel.channel_axis)
        own = np.abs(weights).max(axis=others, keepdims=True)
        chosen = bounds[kernel.weights.name.decode()]
        assert chosen.shape == own.shape
        raised += int((chosen != own).sum())
        assert (own[chosen != own] == 0).all()
    assert raised == UNTRAINED


def test_the_floor_of_one_scale_covers_every_channel(detector: Detector, calibrations: dict[int, Ranges]) -> None:
    model = float_flatbuffer(detector)
    each = weight_ranges(model, calibrations[4], "per_channel")
    for name, one in weight_ranges(model, calibrations[4], "per_tensor").items():
        assert one.shape == (1, 1, 1, 1)
        assert one.max() == each[name].max()
