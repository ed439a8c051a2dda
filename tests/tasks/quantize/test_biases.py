"""Class channels that were never trained keep their biases."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.errors import AuditMismatch
from tasks.quantize.audit import audit
from tasks.quantize.builders import Material
from tasks.quantize.flatbuffer import constant, element_type, read, scales
from tasks.quantize.kernels import Kernel, kernels, weights_of
from tasks.quantize.litert_quantizer import build_integer
from tasks.quantize.ranges import ranges_for
from tasks.quantize.recipe import recipe_of
from tasks.quantize.schemes import Scheme, StaticInt4, StaticInt8, StaticInt8x16
from tasks.quantize.statistics import Statistics
from tasks.quantize.weight_ranges import weight_ranges
from tests.tasks.quantize.conftest import UNTRAINED

QUANTIZED = StaticInt8(toolchain="litert_quantizer", calibration_images=4)
STATIC: list[Any] = [
    StaticInt8(calibration_images=4),
    QUANTIZED,
    replace(QUANTIZED, symmetry="symmetric"),
    replace(QUANTIZED, weight_algorithm="octav"),
    StaticInt4(calibration_images=4),
    StaticInt4(calibration_images=4, symmetry="symmetric"),
    StaticInt8x16(toolchain="litert_quantizer", calibration_images=4),
]
MARGIN = 2**30

SourceOf = Callable[..., bytes]
StatisticsOf = Callable[..., Statistics]


def name_of(scheme: Scheme) -> str:
    axes = scheme.axes()
    return "-".join(
        [scheme.name, *(str(axes[axis]) for axis in ("toolchain", "symmetry", "weight_algorithm") if axis in axes)]
    )


def bias(model: Any, kernel: Kernel) -> np.ndarray:
    return np.frombuffer(constant(model, kernel.bias) or b"", element_type(kernel.bias))


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("scheme", STATIC, ids=name_of)
def test_every_bias_comes_back_within_one_step(
    scheme: Any, granularity: str, source: SourceOf, built: Callable[[Scheme], bytes]
) -> None:
    reference, model = read(source()), read(built(replace(scheme, granularity=granularity)))
    pairs = list(zip(kernels(reference), kernels(model), strict=True))
    assert len(pairs) == 47
    for before, after in pairs:
        step = scales(after.activations).astype(np.float64) * scales(after.weights)
        stored = bias(model, after).astype(np.int64)
        assert np.abs(stored).max() <= MARGIN * 1.001
        # float32 holds 24 bits of the bias, so a large one is off by its rounding as well.
        rounding = np.abs(bias(reference, before)) * 2.0**-22
        assert (np.abs(stored * step - bias(reference, before)) <= step + rounding).all()


@pytest.mark.parametrize("scheme", [QUANTIZED, StaticInt4(calibration_images=4)], ids=name_of)
def test_without_the_floor_the_library_clips_biases_and_the_audit_says_so(
    scheme: Any, source: SourceOf, statistics: StatisticsOf, detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.quantize.weight_ranges._BIAS_HALF_RANGE", np.inf)
    data = build_integer(Material(detector, source(), statistics(4)), scheme)
    with pytest.raises(AuditMismatch, match=f"{UNTRAINED} biases do not fit 32 bits"):
        audit(data)


@pytest.mark.parametrize("scheme", STATIC[1:3] + STATIC[4:], ids=name_of)
def test_the_floor_touches_untrained_channels_only(scheme: Any, source: SourceOf, statistics: StatisticsOf) -> None:
    bounds = weight_ranges(source(), recipe_of(scheme), ranges_for(scheme, source(), statistics(4)))
    tree = read(source())
    raised = 0
    for kernel in kernels(tree):
        own = np.abs(weights_of(tree, kernel)).max(axis=1)
        chosen = bounds[kernel.weights.name.decode()].reshape(-1)
        raised += int((chosen != own).sum())
        assert (own[chosen != own] == 0).all()
    assert raised == UNTRAINED


def test_the_floor_of_one_scale_covers_every_channel(source: SourceOf, statistics: StatisticsOf) -> None:
    ranges = ranges_for(QUANTIZED, source(), statistics(4))
    each = weight_ranges(source(), recipe_of(QUANTIZED), ranges)
    whole: Any = replace(QUANTIZED, granularity="per_tensor")
    for name, one in weight_ranges(source(), recipe_of(whole), ranges).items():
        assert one.shape == (1, 1, 1, 1)
        assert one.max() == each[name].max()
