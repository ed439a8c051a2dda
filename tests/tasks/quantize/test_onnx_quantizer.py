"""onnxruntime.quantization with our ranges: what the library itself makes of the images, and what it gets wrong."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed, UnsupportedScheme
from tasks.quantize import onnx_quantizer
from tasks.quantize.artifact import make
from tasks.quantize.builders import builder_of
from tasks.quantize.formats.onnx import audit
from tasks.quantize.onnx_export import export
from tasks.quantize.onnx_quantizer import build_static
from tasks.quantize.schemes import TRAINING_AXES, DynamicInt8, Float32, QatInt8, StaticInt8
from tasks.runtimes.base import input_table, runtime_of
from tests.tasks.quantize.conftest import UNTRAINED, small_detector

IMAGES = 4


def static(**axes) -> StaticInt8:
    return StaticInt8(**{"toolchain": "onnxruntime", "calibration_images": IMAGES} | axes)


def dynamic(**axes) -> DynamicInt8:
    return DynamicInt8(**{"toolchain": "onnxruntime", "granularity": "per_tensor"} | axes)


def constants_of(data: bytes) -> dict[str, np.ndarray]:
    return {item.name: to_array(item) for item in onnx.load_from_string(data).graph.initializer}


def operators_of(data: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


def activations_of(constants: dict[str, np.ndarray]) -> dict[str, tuple[float, int]]:
    """(scale, zero point) of each activation, by the name of its tensor."""
    return {
        name.removesuffix("_scale"): (float(value), int(constants[name.replace("_scale", "_zero_point")]))
        for name, value in constants.items()
        if name.endswith("_scale") and ".weight" not in name and ".bias" not in name
    }


def outputs_of(data: bytes, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    runtime = runtime_of("onnxruntime")
    session = runtime.open(data, runtime.settings())
    try:
        return session.run(pixels)
    finally:
        session.close()


def by_the_library(source: bytes, pixels: np.ndarray, folder, method, **arguments) -> dict[str, np.ndarray]:
    """Constants of what `quantize_static` makes of the same images with a calibrator of its own."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            real = input_table(np.dtype(np.float32))[pixels].transpose(0, 3, 1, 2)
            self.images = iter([{"images": image[None]} for image in real])

        def get_next(self):
            return next(self.images, None)

    (folder / "float32.onnx").write_bytes(source)
    quantize_static(
        str(folder / "float32.onnx"),
        str(folder / "int8.onnx"),
        Images(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Clip"],
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        **arguments,
    )
    return constants_of((folder / "int8.onnx").read_bytes())


@pytest.mark.parametrize("activation_type", ["uint8", "int8"])
def test_min_max_gives_the_scales_of_the_librarys_own_calibrator(built, source, pixels, tmp_path, activation_type):
    from onnxruntime.quantization import CalibrationMethod, QuantType

    theirs = by_the_library(
        source("none", "onnx"), pixels[:IMAGES], tmp_path, CalibrationMethod.MinMax, per_channel=True,
        activation_type=QuantType.QUInt8 if activation_type == "uint8" else QuantType.QInt8,
    )  # fmt: skip
    ours = constants_of(built(static(activation_type=activation_type)))
    expected, found = activations_of(theirs), activations_of(ours)
    assert len(expected) == len(found) == 48
    for name, (scale, zero_point) in expected.items():
        assert found[name] == (pytest.approx(scale, rel=1e-5), zero_point)


def test_weights_are_those_of_the_library_but_for_channels_whose_bias_does_not_fit(built, source, pixels, tmp_path):
    from onnxruntime.quantization import CalibrationMethod

    theirs = by_the_library(
        source("none", "onnx"), pixels[:IMAGES], tmp_path, CalibrationMethod.MinMax, per_channel=True
    )
    ours = constants_of(built(static()))
    stored = [name for name in ours if name.endswith(".weight_quantized")]
    assert len(stored) == 47
    for name in stored:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_untrained_channels_keep_their_bias(built, detector):
    constants = constants_of(built(static()))
    name = "BoxPredictor_5_scores.bias_quantized"
    real = constants[name].astype(np.float64) * constants[f"{name}_scale"]
    np.testing.assert_allclose(real[:UNTRAINED], -7.5, rtol=1e-6)
    assert np.abs(constants[name].astype(np.int64)).max() <= 2**30


def nearly_untrained() -> Detector:
    """As the small detector, but a class channel has weights just small enough for its bias to fill 32 bits."""
    tensors = {name: values.copy() for name, values in small_detector(0).tensors.items()}
    tensors["BoxPredictor_0_scores/weights"][..., 0] = -1.7e-5
    tensors["BoxPredictor_0_scores/bias"][0] = -7.5
    tensors["Conv2d_11_pointwise/bias"] += 1
    return Detector(small_detector(0).spec, tensors)


def test_the_sum_of_products_has_room_beside_the_bias(pixels, monkeypatch):
    """The library's guard lets the bias fill 32 bits; with any product added to it the sum wraps to the other sign."""
    detector = nearly_untrained()
    source, scheme = export(detector), static(range_estimator="fixed")
    assert (outputs_of(source, pixels)[1][..., 0].min(axis=1) < 0.01).all()
    assert (outputs_of(make(detector, scheme, source), pixels)[1][:, 0, 0] < 0.01).all()
    monkeypatch.setattr(onnx_quantizer, "_weight_ranges", lambda *_: {})
    assert (outputs_of(make(detector, scheme, source), pixels)[1][:, 0, 0] > 0.5).any()


def test_quantized_outputs_are_near_the_float_ones(built, source, pixels):
    boxes, scores = outputs_of(source("none", "onnx"), pixels)
    for scheme in (static(), static(activation_type="int8"), static(symmetry="symmetric"), dynamic()):
        found_boxes, found_scores = outputs_of(built(scheme), pixels)
        assert np.corrcoef(boxes.ravel(), found_boxes.ravel())[0, 1] > 0.97
        assert np.abs(scores - found_scores).mean() < 0.05


def test_saturation_takes_the_place_of_the_activation_function(built):
    assert "Clip" not in operators_of(built(static()))
    # Around a zero point in the middle, negative integers stand for negative numbers, which the Clip must remove.
    assert operators_of(built(static(symmetry="symmetric"))).count("Clip") == 35


@pytest.mark.parametrize(
    "axes,zero_points",
    [
        ({"activation_type": "uint8"}, None),
        ({"activation_type": "uint8", "symmetry": "symmetric"}, {128}),
        ({"activation_type": "int8", "symmetry": "symmetric"}, {0}),
    ],
)
def test_activations_have_the_type_and_the_symmetry_of_the_scheme(built, axes, zero_points):
    constants = constants_of(built(static(**axes)))
    found = activations_of(constants)
    assert {constants[f"{name}_zero_point"].dtype.name for name in found} == {axes["activation_type"]}
    if zero_points:
        assert {zero_point for _, zero_point in found.values()} == zero_points


@pytest.mark.parametrize("estimator", ["entropy", "percentile_99", "mse", "moving_average", "fixed"])
def test_each_estimator_gives_ranges_of_its_own(built, estimator):
    found, usual = (
        activations_of(constants_of(built(static(**axes)))) for axes in ({"range_estimator": estimator}, {})
    )
    assert found.keys() == usual.keys()
    assert found != usual


@pytest.mark.parametrize("scheme", [static(keep_float="Conv2d_0|BoxPredictor_*"), dynamic(keep_float="Conv2d_0")])
def test_kept_layers_are_convolved_in_float(built, scheme):
    layers_found = audit(built(scheme)).layers
    kept = {name for name, arithmetic in layers_found.items() if arithmetic == "float32"}
    patterns = ("Conv2d_0", "BoxPredictor_") if scheme.name == "static_int8" else ("Conv2d_0",)
    assert kept == {name for name in layers_found if name == "Conv2d_0" or name.startswith(patterns[1:] or ("?",))}


def test_detectors_with_caps_are_quantized_throughout(detector):
    caps = {
        f"{layer.name}/cap": np.linspace(1, 6, layer.out_channels).astype(np.float32)
        for layer in layers(detector.spec)
        if layer.kind != "head"
    }
    capped = Detector(detector.spec, detector.tensors | caps)
    data = make(capped, static(range_estimator="fixed"), export(capped))
    assert audit(data).mac_share == {"int8": 1.0}


def test_equal_requests_give_equal_bytes(detector, source, statistics):
    first, second = (make(detector, static(), source("none", "onnx"), statistics(IMAGES)) for _ in range(2))
    assert first == second


def test_it_needs_the_float32_file(detector):
    for scheme in (static(range_estimator="fixed"), dynamic()):
        with pytest.raises(QuantizationFailed, match="float32 artifact"):
            make(detector, scheme)


def test_the_float32_file_of_another_detector_is_refused(detector, source):
    from tasks.quantize.builders import Material

    model = onnx.load_from_string(source("none", "onnx"))
    for item in model.graph.initializer:
        item.name = item.name.replace("Conv2d_0.bias", "other")
    with pytest.raises(QuantizationFailed, match=r"another detector: it lacks Conv2d_0\.bias"):
        build_static(Material(detector, model.SerializeToString()), static(range_estimator="fixed"))


@pytest.mark.parametrize(
    "scheme,axis",
    [
        (static(input_type="uint8"), "input_type"),
        (static(output_type="int8"), "output_type"),
        (static(weight_algorithm="mse"), "weight_algorithm"),
        (dynamic(granularity="per_channel"), "granularity"),
        (dynamic(weight_algorithm="octav"), "weight_algorithm"),
    ],
)
def test_what_the_library_cannot_make_is_refused_with_the_choices(scheme, axis):
    with pytest.raises(UnsupportedScheme, match=f"cannot have {axis}.*choices"):
        builder_of(scheme)


def test_every_builder_has_limits_for_the_axes_that_it_does_not_read():
    honoured = {"toolchain", "transform", "keep_float", "calibration_seed", "calibration_images", "range_estimator"}
    trained = QatInt8(toolchain="onnxruntime", trainer="torch")
    for scheme in (static(), dynamic(), Float32(toolchain="onnx"), trained):
        limited = {limit.axis for limit in builder_of(scheme).limits}
        static_axes = {"granularity", "symmetry", "activation_type"} if isinstance(scheme, StaticInt8) else set()
        training_axes = TRAINING_AXES if scheme.is_trained else ()
        assert scheme.axes().keys() <= honoured | limited | static_axes | set(training_axes)


def test_schemes_of_other_activations_differ(built):
    schemes = [static(), static(activation_type="int8"), static(symmetry="symmetric"), static(granularity="per_tensor")]
    assert len({built(scheme) for scheme in schemes}) == len(schemes)
    assert dataclasses.replace(static(), activation_type="int8") in schemes
