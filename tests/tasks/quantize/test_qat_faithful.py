"""What training simulates is what artifacts compute.

Rounding is chaotic: where two sums differ in their last digit, one in ten thousand values falls on the other side of a
border, which is a whole step, and after forty layers all such differences are as large as rounding noise. So agreement
is shown where quantization changes far more than that: weights of 4 bits, and ranges that cut activations off.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.artifact import make
from tasks.quantize.builders import builder_of
from tasks.quantize.kept_layers import kept_layers
from tasks.quantize.qat import first_ranges, simulation_of
from tasks.quantize.schemes import QatInt4, QatInt8, Scheme
from tasks.quantize.statistics import Statistics
from tasks.runtimes.base import runtime_of
from tasks.training.learner import Ranges
from tasks.training.learners import learner_of

INT8: Any = QatInt8(toolchain="litert_quantizer", calibration_images=4, epochs=1)
INT4: Any = QatInt4(calibration_images=4, epochs=1)
ONNX: Any = replace(INT8, toolchain="onnxruntime")
FIRST = "Conv2d_0|Conv2d_1_*"
"""Layers that nothing quantized comes before. Where it does, a runtime may hand on integers that it has anyway, and a
training rounds nothing that a layer in float reads."""

Outputs = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def ranges(detector: Detector, statistics: Callable[..., Statistics]) -> Ranges:
    """Those of the images, but that every layer is cut off at 0.6 of its range."""
    whole = first_ranges(INT8, detector, statistics(4))
    return {name: ends if name == "image" else (0.6 * ends[0], 0.6 * ends[1]) for name, ends in whole.items()}


@pytest.fixture(scope="module")
def simulated(detector: Detector, ranges: Ranges, pixels: np.ndarray) -> Callable[..., Outputs]:
    """Runs a learner that has learned nothing: codes, and scores after the sigmoid."""

    @functools.cache
    def run(trainer: Any, simulation: Any) -> Outputs:
        learner: Any = learner_of(
            trainer, detector, replace(INT8, distillation_weight=0.0).recipe(), simulation, ranges
        )
        codes, logits = learner.outputs(pixels)
        return codes, 1 / (1 + np.exp(-logits))

    return lambda trainer, scheme: run(trainer, simulation_of(scheme, kept(scheme, detector)))


def kept(scheme: Any, detector: Detector) -> tuple[str, ...]:
    return kept_layers(scheme.keep_float, [layer.name for layer in layers(detector.spec)])


def outputs(scheme: Scheme, data: bytes, pixels: np.ndarray) -> Outputs:
    runtime = runtime_of(builder_of(scheme).runtimes[0])
    session = runtime.open(data, runtime.settings())
    try:
        return session.run(pixels)
    finally:
        session.close()


SCHEMES = [
    *(replace(scheme, granularity=name) for scheme in (INT8, INT4) for name in ("per_channel", "per_tensor")),
    replace(INT8, toolchain="converter"),
    replace(INT8, symmetry="symmetric", keep_float=FIRST),
    ONNX,
]
QUICK = [("torch", replace(INT8, toolchain="converter")), ("keras", replace(INT4, granularity="per_tensor"))]


def _case(trainer: str, scheme: Any) -> Any:
    words = (trainer, scheme.name, scheme.toolchain, scheme.granularity, scheme.symmetry, scheme.keep_float)
    return pytest.param(
        trainer, scheme, id="-".join(words), marks=() if (trainer, scheme) in QUICK else pytest.mark.slow
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "scheme"), [_case(trainer, scheme) for trainer in ("keras", "torch") for scheme in SCHEMES]
)
def test_artifacts_compute_what_training_simulates(
    trainer: str,
    scheme: Any,
    detector: Detector,
    ranges: Ranges,
    pixels: np.ndarray,
    simulated: Callable[..., Outputs],
    source: Callable[..., bytes],
) -> None:
    found = outputs(scheme, make(detector, scheme, ranges=ranges), pixels)
    expected = simulated(trainer, scheme)
    floats = outputs(INT8, source(), pixels)
    # Where zero is in the middle of the integers, half of them are for negative numbers, of which ReLUs leave none.
    step = (2 if scheme.symmetry == "symmetric" else 1) * np.subtract(*ranges["BoxPredictor_0_boxes"][::-1]) / 255
    assert np.abs(found[0] - expected[0]).mean() < step
    assert np.abs(found[0] - expected[0]).max() < 8 * step
    assert np.abs(found[1] - expected[1]).mean() < 0.5 / 256
    for one, simulation, real in zip(found, expected, floats, strict=True):
        assert np.abs(one - simulation).mean() < 0.2 * np.abs(one - real).mean()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [replace(INT4, granularity=name) for name in ("per_channel", "per_tensor")])
@pytest.mark.parametrize("axes", [{"granularity": None}, {"weights": 8}], ids=["other granularity", "other bits"])
def test_another_simulation_is_further_off(
    scheme: Any,
    axes: dict[str, Any],
    detector: Detector,
    ranges: Ranges,
    pixels: np.ndarray,
    simulated: Callable[..., Outputs],
) -> None:
    other = {"per_channel": "per_tensor", "per_tensor": "per_channel"}[scheme.granularity]
    wrong = (
        replace(scheme, granularity=other) if "granularity" in axes else replace(INT8, granularity=scheme.granularity)
    )
    found = outputs(scheme, make(detector, scheme, ranges=ranges), pixels)
    for one, right, far in zip(found, simulated("torch", scheme), simulated("torch", wrong), strict=True):
        assert np.abs(one - right).mean() < 0.5 * np.abs(one - far).mean()
