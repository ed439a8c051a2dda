"""The short way through TFLiteConverter gives what the long way gives."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import UnsupportedScheme
from tasks.quantize.audit import audit
from tasks.quantize.builders import Material, builder_of
from tasks.quantize.flatbuffer import read, text
from tasks.quantize.float_flatbuffer import converter, float_flatbuffer
from tasks.quantize.observe import image_statistics, observe, representative
from tasks.quantize.schemes import DynamicInt8, Float32, Scheme, StaticInt8, StaticInt8x16
from tasks.quantize.statistics import Statistics
from tasks.quantize.transforms.base import transformed
from tests.tasks.quantize.conftest import small_detector
from tests.tasks.quantize.test_schemes_are_kept import outputs


def plain_conversion(detector: Detector, pixels: np.ndarray, scheme: Any, operators: str) -> bytes:
    import tensorflow as tf

    plain = converter(detector)
    plain.optimizations = [tf.lite.Optimize.DEFAULT]
    plain.representative_dataset = lambda: ([representative(image)] for image in pixels)
    plain.target_spec.supported_ops = [tf.lite.OpsSet[operators]]
    plain._experimental_disable_per_channel = scheme.granularity == "per_tensor"
    plain.inference_input_type = tf.as_dtype(scheme.axes().get("input_type", "float32"))
    plain.inference_output_type = tf.as_dtype(scheme.axes().get("output_type", "float32"))
    return bytes(plain.convert())


def tensorflow_statistics(model: bytes, pixels: np.ndarray) -> Statistics:
    """The least and greatest values that TensorFlow's own calibrator finds; ours differ in the last digit."""
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    # The wrapper reads the model from the calibrator's bytes, so the calibrator has to outlive it.
    calibrator = Calibrator(model)
    calibrated = calibrator.calibrate(lambda: ([representative(image)] for image in pixels))
    ranges = {
        text(tensor.name): np.array([tensor.quantization.min[0], tensor.quantization.max[0]], np.float32)
        for tensor in read(calibrated).subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.min is not None
    }
    names = observe(model, pixels[:1], ["an image"])[0].tensors
    assert set(names) == set(ranges)
    return image_statistics("all images", names, [ranges[name] for name in names])


def short_conversion(detector: Detector, pixels: np.ndarray, scheme: Scheme) -> bytes:
    source = float_flatbuffer(transformed(detector, scheme.transform))
    material = Material(detector, source, tensorflow_statistics(source, pixels))
    return builder_of(scheme).build(material, scheme)


@pytest.mark.parametrize(
    ("granularity", "input_type", "output_type"),
    [
        ("per_channel", "float32", "float32"),
        ("per_channel", "int8", "int8"),
        ("per_channel", "uint8", "uint8"),
        ("per_channel", "uint8", "float32"),
        ("per_channel", "float32", "int8"),
        ("per_tensor", "float32", "float32"),
        ("per_tensor", "int8", "uint8"),
    ],
)
def test_static_int8_equals_a_plain_conversion_to_the_byte(
    detector: Detector, pixels: np.ndarray, granularity: Any, input_type: Any, output_type: Any
) -> None:
    scheme = StaticInt8(granularity=granularity, input_type=input_type, output_type=output_type)
    plain = plain_conversion(detector, pixels, scheme, "TFLITE_BUILTINS_INT8")
    assert short_conversion(detector, pixels, scheme) == plain


def test_static_int8x16_equals_a_plain_conversion_to_the_byte(detector: Detector, pixels: np.ndarray) -> None:
    operators = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
    plain = plain_conversion(detector, pixels, StaticInt8x16(), operators)
    assert short_conversion(detector, pixels, StaticInt8x16()) == plain


def test_plain_conversions_to_int8x16_fail_per_tensor(detector: Detector, pixels: np.ndarray) -> None:
    # When this no longer holds, the builder can do more.
    operators = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
    with pytest.raises(RuntimeError, match="Quantized dimension for tensor property"):
        plain_conversion(detector, pixels, StaticInt8x16(granularity="per_tensor"), operators)


@pytest.mark.parametrize("transform", ["equalized", "clustered_4"])
def test_a_transformed_detector_is_converted_alike(detector: Detector, pixels: np.ndarray, transform: str) -> None:
    scheme = StaticInt8(transform=transform)
    plain = plain_conversion(transformed(detector, transform), pixels, scheme, "TFLITE_BUILTINS_INT8")
    assert short_conversion(detector, pixels, scheme) == plain


@pytest.mark.parametrize("end", ["int8", "uint8"])
def test_integer_input_steps_are_pixels(end: Any, built: Callable[[Scheme], bytes]) -> None:
    graph = read(built(StaticInt8(calibration_images=4, input_type=end))).subgraphs[0]
    quantization = graph.tensors[int(graph.inputs[0])].quantization
    assert quantization.scale[0] == pytest.approx(1 / 127.5, rel=0.01)
    assert quantization.zeroPoint[0] in ((127, 128) if end == "uint8" else (-1, 0))


@pytest.mark.parametrize("toolchain", ["converter", "litert_quantizer"])
@pytest.mark.parametrize(("input_type", "output_type"), [("uint8", "uint8"), ("int8", "float32"), ("float32", "int8")])
def test_integer_ends_change_no_bit_of_what_comes_out(
    toolchain: Any, input_type: Any, output_type: Any, built: Callable[[Scheme], bytes], pixels: np.ndarray
) -> None:
    floats = StaticInt8(toolchain=toolchain, calibration_images=4)
    integers = replace(floats, input_type=input_type, output_type=output_type)
    expected, found = (outputs(scheme, built(scheme), pixels) for scheme in (floats, integers))
    for role in ("boxes", "scores"):
        np.testing.assert_array_equal(found[role], expected[role])


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("keep_float", ["Conv2d_0", "BoxPredictor_*|Conv2d_5_depthwise", "[!C]*", "most_sensitive_20"])
def test_kept_layers_and_no_others_stay_in_float(
    detector: Detector, built: Callable[[Scheme], bytes], granularity: Any, keep_float: str
) -> None:
    scheme = StaticInt8(calibration_images=4, granularity=granularity, keep_float=keep_float)
    found = audit(built(scheme)).layers
    names = [layer.name for layer in layers(detector.spec)]
    kept = {
        "Conv2d_0": names[:1],
        "BoxPredictor_*|Conv2d_5_depthwise": [
            name for name in names if name.startswith("Box") or name == "Conv2d_5_depthwise"
        ],
        "[!C]*": [name for name in names if not name.startswith("Conv2d")],
        "most_sensitive_20": names[:20],
    }[keep_float]
    assert {name for name, arithmetic in found.items() if arithmetic == "float32"} == set(kept)
    assert {name for name, arithmetic in found.items() if arithmetic == "int8"} == set(names) - set(kept)


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        (StaticInt8(range_estimator="mse"), "TFLiteConverter keeps its own calibration"),
        (StaticInt8(range_estimator="fixed"), "TFLiteConverter keeps its own calibration"),
        (StaticInt8(symmetry="symmetric"), "TFLiteConverter always chooses the zero points"),
        (StaticInt8(weight_algorithm="octav"), "TFLiteConverter scales weights by their greatest magnitude"),
        (StaticInt8x16(granularity="per_tensor"), "fails on per-tensor depthwise kernels; choices: per_channel"),
        (StaticInt8x16(keep_float="Conv2d_0"), "takes no list of layers; choices: none"),
        (DynamicInt8(keep_float="Conv2d_0"), "takes no list of layers; choices: none"),
    ],
)
def test_what_the_converter_cannot_make_is_refused_with_a_reason(scheme: Scheme, reason: str) -> None:
    with pytest.raises(UnsupportedScheme, match=re.escape(reason)):
        builder_of(scheme)


def test_the_float_artifact_computes_what_the_keras_model_computes(
    detector: Detector, pixels: np.ndarray, built: Callable[[Scheme], bytes]
) -> None:
    from tasks.detector.keras_model import build_keras

    expected = build_keras(detector)(representative(pixels[0]), training=False)
    found = outputs(Float32(), built(Float32()), pixels[:1])
    for role in ("boxes", "scores"):
        assert found[role] == pytest.approx(expected[role].numpy(), abs=1e-4)


def test_a_detector_is_converted_once_in_a_process(detector: Detector) -> None:
    copy = Detector.from_bytes(detector.to_bytes(), "copy")
    assert float_flatbuffer(copy) is float_flatbuffer(detector)


def test_another_detector_is_another_artifact(detector: Detector) -> None:
    assert float_flatbuffer(small_detector(seed=5)) != float_flatbuffer(detector)
