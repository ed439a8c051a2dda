"""Artifacts of trained detectors: the untrained twin is what post-training quantization makes, and looks the same."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed, UnsupportedScheme
from tasks.quantize.artifact import make, observed_by, source_of, toolchain_packages
from tasks.quantize.builders import builder_of, builders
from tasks.quantize.exported_program import described
from tasks.quantize.float_flatbuffer import float_flatbuffer
from tasks.quantize.formats.base import format_of
from tasks.quantize.layer_ranges import layer_ranges, tensor_ranges
from tasks.quantize.qat import clipped, first_ranges, simulation_of
from tasks.quantize.ranges import ranges_for
from tasks.quantize.schemes import Float32, Qat, QatInt4, QatInt8, Scheme, StaticInt4, StaticInt8
from tasks.quantize.statistics import Statistics
from tasks.runtimes.base import runtime_of
from tasks.training.learner import Ranges, Simulation
from tests.detectors import tiny_detector

Build = Callable[[Scheme], bytes]
Gathered = Callable[..., Statistics]

INT8: Any = QatInt8(epochs=0, calibration_images=4)
INT4: Any = QatInt4(epochs=0, calibration_images=4)
LIBRARY: Any = replace(INT8, toolchain="litert_quantizer")
TORCH: Any = replace(INT8, toolchain="pt2e")
ONNX: Any = replace(INT8, toolchain="onnxruntime")
FLATBUFFERS = [INT8, LIBRARY, INT4]


def after_training(scheme: Any) -> Any:
    return replace(scheme, epochs=2)


def static(scheme: Qat) -> Scheme:
    """The post-training scheme of the same axes."""
    kind: Any = StaticInt4 if isinstance(scheme, QatInt4) else StaticInt8
    return kind(**{item.name: getattr(scheme, item.name) for item in fields(kind)})


def toolchain_of(scheme: Scheme) -> str:
    return f"{scheme.name}-{scheme.toolchain}"


def changed_detector(detector: Detector) -> Detector:
    """Every weight is another one, as after a training."""
    random = np.random.default_rng(7)
    noisy = {
        name: (values * random.uniform(0.8, 1.2, values.shape)).astype(np.float32)
        for name, values in detector.tensors.items()
    }
    return Detector(detector.spec, noisy)


def changed_ranges(ranges: Ranges) -> Ranges:
    """Ranges as after a training: each another one, but for the image's and that the heads of one role share theirs."""
    factors = {"boxes": 1.07, "scores": 0.85}
    return {
        name: ends if name == "image" else (0.9 * ends[0], ends[1] * factors.get(name.rsplit("_", 1)[-1], 1.1))
        for name, ends in ranges.items()
    }


@pytest.fixture(scope="module")
def learned(detector: Detector, statistics: Gathered) -> tuple[Detector, Ranges]:
    return changed_detector(detector), changed_ranges(first_ranges(INT8, detector, statistics(4)))


def outputs(scheme: Scheme, data: bytes, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    runtime = runtime_of(builder_of(scheme).runtimes[0])
    session = runtime.open(data, runtime.settings())
    try:
        return session.run(pixels)
    finally:
        session.close()


def twins() -> Iterator[Any]:
    yield from FLATBUFFERS
    yield from (replace(scheme, granularity="per_tensor") for scheme in FLATBUFFERS)
    yield from (replace(scheme, keep_float="Conv2d_0|BoxPredictor_*_scores") for scheme in FLATBUFFERS)
    yield from (replace(scheme, keep_float="BoxPredictor_2_boxes") for scheme in FLATBUFFERS)
    yield replace(INT8, input_type="uint8", output_type="int8")
    yield replace(LIBRARY, symmetry="symmetric", output_type="uint8")
    for estimator in ("moving_average", "percentile_99", "mse", "entropy", "fixed"):
        yield replace(LIBRARY, range_estimator=estimator)
        yield replace(INT4, range_estimator=estimator, symmetry="symmetric")


@pytest.mark.parametrize("scheme", list(twins()), ids=lambda scheme: "-".join(map(str, scheme.axes().values())))
def test_the_untrained_twin_is_what_post_training_quantization_makes_to_the_byte(scheme: Any, built: Build) -> None:
    assert built(scheme) == built(static(scheme))


@pytest.mark.parametrize("estimator", ["percentile_99", "mse", "fixed"])
def test_the_converter_takes_any_first_ranges(estimator: str, built: Build, pixels: np.ndarray) -> None:
    scheme = replace(INT8, range_estimator=estimator)
    assert built(scheme) != built(INT8)
    library = replace(LIBRARY, range_estimator=estimator)
    for one, other in zip(*(outputs(each, built(each), pixels) for each in (scheme, library)), strict=True):
        assert np.abs(one - other).mean() < 0.02 * np.abs(other).max()


def test_the_untrained_twin_of_pt2e_is_the_same_program(detector: Detector, statistics: Gathered) -> None:
    import torch

    from tasks.quantize.torch_pt2e import static_program

    ranges = (layer_ranges(static(TORCH), detector, statistics(4)), first_ranges(TORCH, detector, statistics(4)))
    assert ranges[0] != ranges[1]
    post, twin = (static_program(detector, TORCH, found, ("Conv2d_0",)) for found in ranges)
    assert str(post.graph) == str(twin.graph)
    assert described(post) == described(twin)
    assert post.state_dict.keys() == twin.state_dict.keys()
    assert all(torch.equal(values, twin.state_dict[name]) for name, values in post.state_dict.items())
    assert post.constants.keys() == twin.constants.keys()
    assert all(torch.equal(values, twin.constants[name]) for name, values in post.constants.items())


@pytest.mark.parametrize("activation_type", ["uint8", "int8"])
def test_the_untrained_twin_of_onnxruntime_differs_in_the_scales_of_the_heads_alone(
    activation_type: Any, built: Build
) -> None:
    import onnx

    scheme = replace(ONNX, activation_type=activation_type)
    post, twin = (onnx.load_from_string(built(each)) for each in (static(scheme), scheme))
    assert [str(node) for node in post.graph.node] == [str(node) for node in twin.graph.node]
    constants = [{item.name: item for item in model.graph.initializer} for model in (post, twin)]
    assert constants[0].keys() == constants[1].keys()
    different = {name for name, item in constants[0].items() if item != constants[1][name]}
    assert different
    for name in different:
        assert name.startswith("BoxPredictor_")
        assert ".weight" not in name and ".bias" not in name


@pytest.mark.parametrize(
    "scheme",
    [*FLATBUFFERS, ONNX, pytest.param(TORCH, marks=pytest.mark.slow)],
    ids=toolchain_of,
)
@pytest.mark.parametrize("axes", [{}, {"granularity": "per_tensor", "keep_float": "BoxPredictor_0_scores|Conv2d_0"}])
def test_training_is_no_part_of_the_structure(
    scheme: Any, axes: dict[str, Any], built: Build, learned: tuple[Detector, Ranges]
) -> None:
    untrained = replace(scheme, **axes)
    trained = after_training(untrained)
    found = make(learned[0], trained, ranges=learned[1])
    form = format_of(builder_of(trained).format)
    assert found != built(untrained)
    assert form.structure(found) == form.structure(built(untrained))
    audits = [replace(form.audit(data), codebook_size=0) for data in (found, built(untrained))]
    assert audits[0] == audits[1]
    assert (audits[0].layers["Conv2d_0"] == "float32") == bool(axes)


def test_trained_ranges_are_those_of_the_artifact(learned: tuple[Detector, Ranges]) -> None:
    from tasks.quantize.flatbuffer import read, text
    from tasks.quantize.kernels import kernels
    from tasks.quantize.layer_names import layer_of

    scheme = after_training(LIBRARY)
    for kernel in kernels(read(make(learned[0], scheme, ranges=learned[1]))):
        low, high = learned[1][str(layer_of(text(kernel.output.name)))]
        quantization = kernel.output.quantization
        assert quantization.scale[0] == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-5)


def test_trained_weights_are_those_of_the_artifact(
    learned: tuple[Detector, Ranges], detector: Detector, pixels: np.ndarray
) -> None:
    reference = [outputs(Float32(), float_flatbuffer(each), pixels) for each in (learned[0], detector)]
    found = outputs(INT8, make(learned[0], after_training(INT8), ranges=learned[1]), pixels)
    for one, trained, untrained in zip(found, *reference, strict=True):
        assert np.abs(one - trained).mean() < 0.5 * np.abs(one - untrained).mean()


def test_first_ranges_of_the_heads_are_those_of_all_their_values(
    detector: Detector, source: Callable[..., bytes], statistics: Gathered
) -> None:
    for estimator in ("min_max", "moving_average", "percentile_99_9", "mse", "entropy", "fixed"):
        scheme = replace(LIBRARY, range_estimator=estimator)
        found = first_ranges(scheme, detector, statistics(4))
        assert list(found) == ["image", *(layer.name for layer in layers(detector.spec))]
        for role in ("boxes", "scores"):
            assert len({ends for name, ends in found.items() if name.endswith(role)}) == 1
        wanted = ranges_for(scheme, source(), statistics(4))
        spread = tensor_ranges(source(), found)
        assert spread.keys() == wanted.keys()
        # The sigmoid's output alone has a range of its own: integers of it always count from 0 to 1.
        different = {name for name, ends in wanted.items() if spread[name] != ends}
        assert different <= {"PartitionedCall:1"}
        assert spread["PartitionedCall:1"] == (0, 1)


def test_caps_do_not_matter_to_the_range_of_a_layer(detector: Detector) -> None:
    caps = {
        f"{layer.name}/cap": np.linspace(1, 6, layer.out_channels).astype(np.float32)
        for layer in layers(detector.spec)
        if layer.kind != "head"
    }
    capped = Detector(detector.spec, detector.tensors | caps)
    ranges = {name: (0.0, 1.0 + number) for number, name in enumerate(["image", *_names(detector)])}
    spread = tensor_ranges(float_flatbuffer(capped), ranges)
    plain = tensor_ranges(float_flatbuffer(detector), ranges)
    assert len(spread) == len(plain) + len(caps)
    assert set(spread.values()) == set(plain.values())


def test_ranges_of_another_detector_are_refused(learned: tuple[Detector, Ranges], source: Callable[..., bytes]) -> None:
    detector, ranges = learned
    less = {name: ends for name, ends in ranges.items() if name != "Extra_1_3x3"}
    with pytest.raises(QuantizationFailed, match="they lack Extra_1_3x3"):
        tensor_ranges(source(), less)
    for wrong in (less, ranges | {"Extra_9_3x3": (0.0, 1.0)}):
        with pytest.raises(QuantizationFailed, match="another detector: only one of both has Extra_"):
            make(detector, after_training(INT8), ranges=wrong)
    for ends in ((0.0, float("nan")), (1.0, 0.0), (float("-inf"), 0.0)):
        with pytest.raises(QuantizationFailed, match="the range of activations of Conv2d_0 is"):
            make(detector, after_training(INT8), ranges=ranges | {"Conv2d_0": ends})


@pytest.mark.parametrize("scheme", [*FLATBUFFERS, TORCH, ONNX], ids=toolchain_of)
def test_what_is_trained_needs_a_training_and_no_statistics(
    scheme: Any, detector: Detector, statistics: Gathered
) -> None:
    with pytest.raises(QuantizationFailed, match="needs a trained detector, and none was given"):
        make(detector, after_training(scheme), statistics=statistics(4))
    # What was trained in float has weights, but no ranges.
    with pytest.raises(QuantizationFailed, match="needs a trained detector, and none was given"):
        make(detector, after_training(scheme), ranges={})
    with pytest.raises(QuantizationFailed, match="needs statistics of calibration images, and none was given"):
        make(detector, scheme)


@pytest.mark.parametrize("scheme", [*FLATBUFFERS, TORCH, ONNX], ids=toolchain_of)
def test_builders_start_from_the_detector_and_the_statistics_of_its_float_artifact(scheme: Any) -> None:
    assert source_of(scheme) is None
    assert observed_by(scheme) == observed_by(after_training(scheme)) == Float32()
    assert observed_by(replace(scheme, range_estimator="fixed")) is None
    assert builder_of(scheme).framework == ("torch" if scheme in (TORCH, ONNX) else "tensorflow")


def test_each_trainer_serves_each_toolchain_and_its_packages_are_named() -> None:
    for builder in builders():
        if not issubclass(builder.scheme, Qat):
            continue
        twin = builder.scheme(toolchain=builder.toolchain, epochs=0)  # type: ignore[arg-type]
        for trainer, package in {"keras": "tensorflow-model-optimization", "torch": "torchao"}.items():
            trained: Any = replace(twin, epochs=1, trainer=trainer)  # type: ignore[arg-type]
            assert builder_of(trained) == builder
            assert package in toolchain_packages(trained)
            assert toolchain_packages(twin) <= toolchain_packages(trained)
        assert "tensorflow-model-optimization" not in toolchain_packages(twin)
        # A program of the user's own that names no trainer trains with what the toolchain needs anyway.
        by_default = builder.forced.get("trainer", "keras")
        assert by_default == ("torch" if builder.framework == "torch" else "keras")


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        (replace(INT4, weight_algorithm="oscar"), "training rounds weights to the nearest integer of their range"),
        (replace(INT4, weight_algorithm="oscar"), "training rounds weights to the nearest integer of their range"),
        (replace(LIBRARY, transform="clustered_16"), "training would undo clustered and binary weights"),
        (replace(TORCH, transform="equalized"), "moves no caps of equalized ones"),
        (replace(INT8, symmetry="symmetric"), "TFLiteConverter always chooses the zero points"),
        (replace(ONNX, input_type="uint8"), "keeps the ends of the graph in float"),
        (replace(TORCH, output_type="int8"), "the heads write float32"),
        (replace(INT4, toolchain="converter"), "stores 8-bit weights; choices: litert_quantizer"),
        (replace(INT4, toolchain="pt2e"), "would store 8 bits; choices: litert_quantizer"),
        (replace(INT4, toolchain="onnxruntime"), "no runtime of QDQ models has convolutions of 4-bit weights; choices"),
        (StaticInt4(toolchain="pt2e"), "would store 8 bits; choices: litert_quantizer"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(scheme: Scheme, reason: str) -> None:
    with pytest.raises(UnsupportedScheme, match=reason):
        builder_of(scheme)


def test_what_is_simulated_is_what_the_artifact_has() -> None:
    assert simulation_of(INT8, ()) == Simulation(8, 8, is_per_channel=True, is_symmetric=False)
    four = replace(INT4, granularity="per_tensor", symmetry="symmetric")
    wanted = Simulation(4, 8, is_per_channel=False, is_symmetric=True, kept_float=frozenset({"Conv2d_0"}))
    assert simulation_of(four, ("Conv2d_0",)) == wanted


def _names(detector: Detector) -> list[str]:
    return [layer.name for layer in layers(detector.spec)]


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("algorithm", ["mse", "octav"])
def test_weights_are_cut_off_before_training_where_the_algorithm_cuts_them_off(granularity, algorithm):
    detector = tiny_detector()
    scheme = QatInt4(granularity=granularity, weight_algorithm=algorithm)
    cut = clipped(scheme, detector, ("Conv2d_0",))

    assert clipped(QatInt4(granularity=granularity), detector, ()) is detector
    np.testing.assert_array_equal(cut.tensors["Conv2d_0/weights"], detector.tensors["Conv2d_0/weights"])
    changed = 0
    for layer in layers(detector.spec):
        before, after = (each.tensors[f"{layer.name}/weights"] for each in (detector, cut))
        axis = 2 if layer.kind == "depthwise" else 3
        rows = np.moveaxis(after, axis, 0).reshape(layer.out_channels if granularity == "per_channel" else 1, -1)
        bounds = np.abs(rows).max(axis=1)
        spread = bounds.reshape([-1 if position == axis else 1 for position in range(4)])
        np.testing.assert_array_equal(after, np.clip(before, -spread, spread))
        np.testing.assert_array_equal(cut.tensors[f"{layer.name}/bias"], detector.tensors[f"{layer.name}/bias"])
        changed += bool((before != after).any())
    assert changed > len(layers(detector.spec)) // 2
