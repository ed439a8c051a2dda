"""PT2E: torchao's graphs get our ranges, and every convolution becomes integers in the machine code too."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.torch_model import build_torch
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed, UnsupportedScheme
from tasks.quantize.artifact import make
from tasks.quantize.builders import builder_of
from tasks.quantize.exported_program import described
from tasks.quantize.formats.base import format_of
from tasks.quantize.layer_ranges import IMAGE, layer_ranges
from tasks.quantize.observe import representative
from tasks.quantize.schemes import DynamicInt8, StaticInt8
from tasks.quantize.torch_annotation import static_activations
from tasks.quantize.torch_pt2e import converted_program, dynamic_program, prepared_module, static_program
from tasks.runtimes.base import runtime_of
from tasks.types import RuntimeSettings

STATIC = StaticInt8(toolchain="pt2e", calibration_images=4)
DYNAMIC = DynamicInt8(toolchain="pt2e")
CONVOLUTION = torch.ops.aten.conv2d.default
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


@pytest.fixture(scope="module")
def images(pixels):
    return [torch.from_numpy(representative(image)).permute(0, 3, 1, 2) for image in pixels]


@pytest.fixture(scope="module")
def program(detector, statistics):
    """Quantizes the small detector with the ranges of its statistics, once in each way."""

    @functools.cache
    def quantize(scheme=STATIC, kept_float=()):
        return static_program(detector, scheme, layer_ranges(scheme, detector, statistics(4)), kept_float)

    return quantize


def called(program, *targets):
    return [node for node in program.graph.nodes if node.target in targets]


def parameters(program):
    """Scale and zero point of each quantized activation, in order."""
    return [tuple(node.args[1:3]) for node in called(program, QUANTIZE)]


def run(program, image):
    with torch.no_grad():
        return [output.numpy() for output in program.module()(image)]


def observed_by_torchao(detector, images, observer):
    """Quantizes with ranges that an observer of torchao finds in the images, as its tutorials do."""
    spec = replace(static_activations("asymmetric"), observer_or_fake_quant_ctr=observer)
    prepared = prepared_module(detector, STATIC, spec, ())
    with torch.no_grad():
        for image in images:
            prepared(image)
    return converted_program(prepared, detector, STATIC.memory_layout)


def test_min_max_ranges_give_the_scales_that_torchaos_observers_find_in_the_same_images(detector, images, program):
    from torchao.quantization.pt2e import MinMaxObserver

    wanted = parameters(observed_by_torchao(detector, images, MinMaxObserver))
    found = parameters(program())
    assert len(wanted) == 1 + sum(layer.kind != "head" for layer in layers(detector.spec))
    assert [zero for _, zero in found] == [zero for _, zero in wanted]
    assert [scale for scale, _ in found] == pytest.approx([scale for scale, _ in wanted], rel=1e-4)


def test_histogram_ranges_are_those_of_torchaos_histogram_observer(detector, images, program):
    from torchao.quantization.pt2e import HistogramObserver

    wanted = np.array(parameters(observed_by_torchao(detector, images, HistogramObserver)))
    found = np.array(parameters(program(replace(STATIC, range_estimator="histogram"))))
    np.testing.assert_allclose(found[:, 0], wanted[:, 0], rtol=0.03)
    np.testing.assert_allclose(found[:, 1], wanted[:, 1], atol=1)


def test_all_convolutions_read_integers_and_padding_moves_integers_alone(program):
    quantized = program()
    assert {item["arithmetic"] for item in described(quantized)["convolutions"]} == {"int8"}
    assert {node.args[0].target for node in called(quantized, CONVOLUTION)} == {DEQUANTIZE}
    read = {node.args[0].target for node in called(quantized, QUANTIZE)}
    assert read == {torch.ops.aten.relu6.default, torch.ops.aten.to.dtype}


def test_padding_integers_changes_no_output(detector, images, program, statistics, monkeypatch):
    moved = run(program(), images[0])
    monkeypatch.setattr("tasks.quantize.torch_lowering.pad_integers", lambda model: None)
    plain = static_program(detector, STATIC, layer_ranges(STATIC, detector, statistics(4)))
    assert any(node.args[0].target is torch.ops.aten.pad.default for node in called(plain, QUANTIZE))
    for one, other in zip(moved, run(plain, images[0]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(("granularity", "layout"), [("per_channel", "channels_last"), ("per_tensor", "contiguous")])
def test_a_quantized_detector_computes_about_what_the_float_one_does(detector, images, program, granularity, layout):
    quantized = program(replace(STATIC, granularity=granularity, memory_layout=layout))
    assert {item["granularity"] for item in described(quantized)["convolutions"]} == {granularity}
    with torch.no_grad():
        floats = [output.numpy() for output in build_torch(detector)(images[0])]
    for one, other in zip(run(quantized, images[0]), floats, strict=True):
        assert 0 < np.abs(one - other).mean() < 0.1 * np.abs(other).mean()


def test_symmetric_activations_have_the_zero_in_the_middle_of_their_integers(program):
    assert {zero for _, zero in parameters(program(replace(STATIC, symmetry="symmetric")))} == {128}
    # After ReLU6 nothing is negative; the image is as much below zero as above.
    assert {zero for _, zero in parameters(program())} <= {0, 127, 128}
    assert described(program(replace(STATIC, symmetry="symmetric")))["symmetric"] is True


def test_layers_kept_in_float_keep_their_weights_and_the_others_lose_them(program):
    kept = ("Conv2d_0", "BoxPredictor_0_scores")
    quantized = program(kept_float=kept)
    found = {item["layer"]: item["arithmetic"] for item in described(quantized)["convolutions"]}
    assert {layer for layer, arithmetic in found.items() if arithmetic == "float32"} == set(kept)
    assert {name for name in quantized.state_dict if name.endswith(".weight")} == {f"{layer}.weight" for layer in kept}


def test_a_channel_of_zero_weights_keeps_its_bias(detector, images, program):
    scores = run(program(), images[0])[1]
    assert np.isfinite(scores).all()
    # The fixture's detector has such channels in its last head, of the first of six anchors, with the bias -7.5.
    assert scores[0, -6, 0] == pytest.approx(1 / (1 + np.exp(7.5)), rel=1e-3)


def test_caps_of_channels_are_part_of_the_range(detector, statistics):
    tensors = {**detector.tensors, "Conv2d_1_pointwise/cap": np.full(16, 0.5, np.float32)}
    capped = Detector(detector.spec, tensors)
    scheme = replace(STATIC, range_estimator="fixed")
    ranges = layer_ranges(scheme, capped, None)
    assert ranges["Conv2d_1_pointwise"] == (0.0, 0.5)
    assert min(scale for scale, _ in parameters(static_program(capped, scheme, ranges))) == pytest.approx(0.5 / 255)


@pytest.mark.parametrize("name", [IMAGE, "Conv2d_3_depthwise"])
def test_an_activation_without_a_range_is_named(detector, name):
    scheme = replace(STATIC, range_estimator="fixed")
    ranges = layer_ranges(scheme, detector, None)
    del ranges[name]
    with pytest.raises(QuantizationFailed, match=name):
        static_program(detector, scheme, ranges)


def test_dynamic_convolutions_find_their_ranges_in_the_image(detector, images):
    quantized = dynamic_program(detector, DYNAMIC)
    assert {item["arithmetic"] for item in described(quantized)["convolutions"]} == {"dynamic_int8"}
    assert not called(quantized, QUANTIZE)
    with torch.no_grad():
        floats = build_torch(detector)(images[0])[1].numpy()
    assert 0 < np.abs(run(quantized, images[0])[1] - floats).mean() < 0.05 * np.abs(floats).mean()


@pytest.mark.parametrize(
    "scheme",
    [
        replace(STATIC, weight_algorithm="mse"),
        replace(STATIC, input_type="uint8"),
        replace(STATIC, output_type="int8"),
        replace(DYNAMIC, weight_algorithm="gptq"),
    ],
)
def test_what_the_toolchain_cannot_make_is_refused(scheme):
    with pytest.raises(UnsupportedScheme, match="pt2e cannot have"):
        builder_of(scheme)


def scores_of(data, image_pixels):
    session = runtime_of("torch").open(data, RuntimeSettings("torch"))
    try:
        return session.run(image_pixels[None])[1]
    finally:
        session.close()


@pytest.mark.slow
def test_the_machine_code_calls_integer_kernels_for_every_layer(detector, statistics, pixels, images, program):
    # Weights of one scale a tensor: the pattern of ours, and then torchao's.
    scheme = replace(STATIC, granularity="per_tensor")
    data = make(detector, scheme, statistics=statistics(4))
    audit = format_of("pt2").audit(data)
    assert set(audit.layers) == {layer.name for layer in layers(detector.spec)}
    assert audit.mac_share == {"int8": 1.0}
    wanted = run(program(scheme), images[0])[1]
    assert np.abs(scores_of(data, pixels[0]) - wanted).max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_the_machine_code_of_dynamic_convolutions_calls_integer_kernels_too(detector, pixels, images, granularity):
    scheme = replace(DYNAMIC, granularity=granularity)
    data = make(detector, scheme)
    assert format_of("pt2").audit(data).mac_share == {"dynamic_int8": 1.0}
    wanted = run(dynamic_program(detector, scheme), images[0])[1]
    assert np.abs(scores_of(data, pixels[0]) - wanted).max() < 0.05


@pytest.mark.slow
def test_packages_that_differ_in_ranges_alone_have_one_structure(detector, statistics):
    made = [
        make(detector, replace(STATIC, range_estimator=estimator), statistics=statistics(4))
        for estimator in ("min_max", "percentile_90")
    ]
    assert made[0] != made[1]
    assert len({format_of("pt2").structure(data) for data in made}) == 1
