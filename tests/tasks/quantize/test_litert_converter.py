"""The short way through TFLiteConverter gives what the long way gives."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.detector.weights import Detector
from tasks.quantize.builders import builder_of
from tasks.quantize.float_flatbuffer import converter, float_flatbuffer
from tasks.quantize.ranges import representative
from tasks.quantize.schemes import Float32, Granularity, Scheme, StaticInt8
from tests.tasks.quantize.conftest import small_detector
from tests.tasks.quantize.test_ranges import tensorflow_ranges
from tests.tasks.quantize.test_schemes_are_kept import outputs


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_static_int8_equals_a_plain_conversion_to_the_byte(
    detector: Detector, pixels: np.ndarray, granularity: Granularity
) -> None:
    import tensorflow as tf

    plain = converter(detector)
    plain.optimizations = [tf.lite.Optimize.DEFAULT]
    plain.representative_dataset = lambda: ([representative(image)] for image in pixels)
    plain.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    plain._experimental_disable_per_channel = granularity == "per_tensor"
    scheme = StaticInt8("converter", granularity, calibration_images=len(pixels))
    ranges = tensorflow_ranges(float_flatbuffer(detector), pixels)
    assert builder_of(scheme).build(detector, scheme, ranges) == plain.convert()


def test_the_float_artifact_computes_what_the_keras_model_computes(
    detector: Detector, pixels: np.ndarray, built: Callable[[Scheme], bytes]
) -> None:
    from tasks.detector.keras_model import build_keras

    expected = build_keras(detector)(representative(pixels[0]), training=False)
    found = outputs(built(Float32()), pixels[0])
    for role in ("boxes", "scores"):
        assert found[role] == pytest.approx(expected[role].numpy(), abs=1e-4)


def test_a_detector_is_converted_once_in_a_process(detector: Detector) -> None:
    copy = Detector.from_bytes(detector.to_bytes(), "copy")
    assert float_flatbuffer(copy) is float_flatbuffer(detector)


def test_another_detector_is_another_artifact(detector: Detector) -> None:
    assert float_flatbuffer(small_detector(seed=5)) != float_flatbuffer(detector)
