"""Training in Keras: what is quantized while a detector trains, and that a training can be taken up again."""

from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest

from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.quantize.artifact import make
from tasks.quantize.flatbuffer import read, text
from tasks.quantize.kernels import kernels
from tasks.quantize.layer_names import layer_of
from tasks.quantize.qat import first_ranges, simulation_of
from tasks.quantize.schemes import Float32, QatInt4, QatInt8
from tasks.quantize.statistics import Statistics
from tasks.training.learner import Batch, Ranges, Simulation
from tasks.training.recipe import Recipe
from tests.tasks.quantize.test_schemes_are_kept import outputs

RECIPE = Recipe(epochs=1, learning_rate=1e-3, weight_decay=0.01)
UNTRAINED: Any = QatInt8(epochs=0)
SIMULATION = Simulation(8, 8, is_per_channel=True, is_symmetric=False)


def learner(detector: Detector, recipe: Recipe = RECIPE, *simulated: Any) -> Any:
    from tasks.quantize.qat_keras import KerasLearner

    return KerasLearner(detector, recipe, *simulated)


def batch_of(detector: Detector, images: int, seed: int = 0) -> Batch:
    """Noise, with a few anchors that have to find something."""
    random, count = np.random.default_rng(seed), len(anchors(detector.spec))
    side, classes = detector.spec.image_size, len(detector.spec.class_ids)
    is_matched = random.random((images, count)) < 0.05
    return Batch(
        random.integers(0, 256, (images, side, side, 3), np.uint8),
        random.normal(size=(images, count, 4)).astype(np.float32),
        np.where(is_matched, random.integers(1, classes, (images, count)), -1).astype(np.int32),
    )


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, values in before.items() if not np.array_equal(values, after[name])}


@pytest.fixture(scope="module")
def ranges(detector: Detector, statistics: Callable[[int], Statistics]) -> Ranges:
    return first_ranges(UNTRAINED, detector, statistics(4))


@pytest.fixture(scope="module")
def floating(detector: Detector) -> Any:
    return learner(detector, replace(RECIPE, distillation_weight=1.0))


def test_a_float_learner_starts_as_the_detector_and_its_own_teacher(
    floating: Any, detector: Detector, source: Callable[[], bytes], pixels: np.ndarray
) -> None:
    codes, logits = floating.outputs(pixels)
    reference = outputs(Float32(), source(), pixels)
    np.testing.assert_allclose(codes, reference["boxes"], atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), reference["scores"], atol=1e-5)
    assert floating.detector().sha256 == detector.sha256
    assert floating.ranges() == {}
    losses = floating.evaluate(batch_of(detector, 3))
    assert losses.distillation == losses.total == pytest.approx(0, abs=1e-6)
    assert losses.box > 0.1 and losses.score > 0.1


@pytest.mark.parametrize(
    "scheme",
    [
        pytest.param(UNTRAINED, id="int8", marks=pytest.mark.slow),
        pytest.param(replace(UNTRAINED, granularity="per_tensor"), id="int8-per-tensor"),
        pytest.param(QatInt4(epochs=0), id="int4"),
    ],
)
def test_each_layer_rounds_as_the_artifact_does(
    scheme: Any, detector: Detector, statistics: Callable[[int], Statistics], ranges: Ranges, pixels: np.ndarray
) -> None:
    """A whole detector would compare nothing: of one value that is rounded otherwise, many follow in each layer.

    The int32 biases of the artifact are rounded, too, which nothing simulates: most with 4-bit weights.
    """
    import tf_keras

    from tasks.training.keras_graph import activation_name

    model = learner(detector, RECIPE, simulation_of(scheme, ()), ranges)._model
    table = {layer.name: layer for layer in layers(detector.spec)}
    different = []
    for name, read_values, written, step in integer_layers(make(detector, scheme, None, statistics(4)), pixels[0]):
        layer = table[name]
        end = name if layer.kind == "head" else activation_name(layer)
        part = tf_keras.Model(model.get_layer(name).input, model.get_layer(end).output)
        found = np.asarray(part(read_values, training=False)) / step
        # Heads are rounded after they are joined.
        steps = np.abs((np.round(found) if layer.kind == "head" else found) - written / step)
        assert steps.max() < 1.01, name
        different.append((steps > 0.5).mean())
    assert len(different) == len(table)
    assert np.mean(different) < (0.03 if isinstance(scheme, QatInt4) else 0.006)


def integer_layers(data: bytes, pixels: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """Runs an artifact: (name, values read, values written, step between these) of each layer."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None].astype(np.float32) / 127.5 - 1)
    interpreter.invoke()
    details = {item["index"]: item for item in interpreter.get_tensor_details()}
    tree = read(data)
    places = {id(tensor): index for index, tensor in enumerate(tree.subgraphs[0].tensors)}

    def value(tensor: Any) -> tuple[np.ndarray, float]:
        scale, zero = details[places[id(tensor)]]["quantization"]
        return (interpreter.get_tensor(places[id(tensor)]).astype(np.float32) - zero) * np.float32(scale), scale

    return [
        (str(layer_of(text(kernel.output.name))), value(kernel.activations)[0], *value(kernel.output))
        for kernel in kernels(tree)
    ]


def test_the_image_is_rounded_as_by_the_artifact(
    detector: Detector, statistics: Callable[[int], Statistics], ranges: Ranges
) -> None:
    """Each of its values is halfway between two levels."""
    from tasks.quantize.qat_keras_quantizers import ImageQuantizer

    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels.reshape(-1)[:256] = np.arange(256)
    first = integer_layers(make(detector, UNTRAINED, None, statistics(4)), pixels)[0]
    values = (pixels[None].astype(np.float32) / np.float32(127.5)) - np.float32(1)
    found = np.asarray(ImageQuantizer(False)(values, False, {"range": np.array(ranges["image"], np.float32)}))
    # The ends are half a step off on one side here and on the other there.
    inner = (pixels[None] > 0) & (pixels[None] < 255)
    np.testing.assert_allclose(found[inner], first[1][inner], atol=1e-6)


def test_weights_have_the_scale_of_their_channel_in_depthwise_layers_too() -> None:
    from tasks.quantize.qat_keras_quantizers import WeightQuantizer

    random = np.random.default_rng(0)
    for axis, shape in ((3, (1, 1, 5, 7)), (2, (3, 3, 7, 1)), (None, (3, 3, 7, 1))):
        weights = (random.normal(size=shape) * 10.0 ** random.integers(-3, 3, shape[axis or 3])).astype(np.float32)
        weights[..., :1] *= 0 if axis == 3 else 1
        others = tuple(other for other in range(4) if other != axis) if axis else None
        greatest = np.abs(weights).max(others, keepdims=True)
        for bits in (4, 8):
            bound = 2 ** (bits - 1) - 1
            integers = np.round(weights / np.maximum(greatest, 1e-30) * bound)
            found = np.asarray(WeightQuantizer(bits, axis)(weights, True, {}))
            np.testing.assert_allclose(found, integers * greatest / bound, rtol=1e-5)
            assert np.abs(integers).max() == bound


def test_gradients_pass_through_rounded_weights_and_through_activations_within_their_range() -> None:
    import tensorflow as tf

    from tasks.quantize.qat_keras_quantizers import ActivationQuantizer, WeightQuantizer

    weights = tf.constant(np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype(np.float32))
    values, found = tf.constant([-3.0, -0.9, 0.3, 1.9, 2.5]), tf.constant([-1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch([weights, values])
        rounded = WeightQuantizer(4, 3)(weights, True, {})
        bounded = ActivationQuantizer(False)(values, False, {"range": found})
        total = 3 * tf.reduce_sum(rounded) + 5 * tf.reduce_sum(bounded)
    of_weights, of_values = tape.gradient(total, [weights, values])
    assert (of_weights.numpy() == 3).all()
    assert of_values.numpy().tolist() == [0, 5, 5, 5, 0]


@pytest.mark.parametrize("range_", [(-1.0, 2.0), (0.5, 6.0), (-4.0, -1.0)])
def test_activations_have_256_levels_with_zero_among_them(range_: tuple[float, float]) -> None:
    from tasks.quantize.qat_keras_quantizers import ActivationQuantizer

    values = np.linspace(-8, 8, 100_001).astype(np.float32)
    found = {"range": np.array(range_, np.float32)}
    free, symmetric = (np.unique(ActivationQuantizer(is_symmetric)(values, False, found)) for is_symmetric in (0, 1))
    low, high = min(range_[0], 0), max(range_[1], 0)
    greatest = max(map(abs, range_))
    for levels, step in ((free, (high - low) / 255), (symmetric, 2 * greatest / 255)):
        assert len(levels) == 256
        assert (levels == 0).sum() == 1
        np.testing.assert_allclose(np.diff(levels), step, rtol=1e-3)
    assert abs(free[0] - low) <= (high - low) / 510 + 1e-6
    np.testing.assert_allclose(symmetric[[0, -1]], [-256 / 255 * greatest, 254 / 255 * greatest], rtol=1e-5)


def test_an_activation_is_rounded_unless_every_layer_that_reads_it_is_kept(detector: Detector) -> None:
    from tasks.quantize.qat_keras_quantizers import quantized_activations

    def rounded(*kept: str) -> set[str]:
        return quantized_activations(detector, replace(SIMULATION, kept_float=frozenset(kept)))

    names = [layer.name for layer in layers(detector.spec)]
    everything, heads = rounded(), {name for name in names if name.startswith("BoxPredictor")}
    assert everything == {"image", "joined_boxes", "joined_scores"} | {
        f"{name}_activation" for name in names if name not in heads
    }
    assert everything - rounded("Conv2d_0") == {"image"}
    assert everything - rounded("Conv2d_12_depthwise") == set()
    assert everything - rounded("Conv2d_12_depthwise", "BoxPredictor_0_boxes", "BoxPredictor_0_scores") == {
        "Conv2d_11_pointwise_activation"
    }
    assert everything - rounded(*(name for name in heads if name.endswith("boxes"))) == {"joined_boxes"}
    assert rounded(*names) == set()


def test_what_is_kept_in_float_is_not_rounded(detector: Detector, ranges: Ranges, pixels: np.ndarray) -> None:
    kept = frozenset(f"BoxPredictor_{index}_scores" for index in range(6)) | {"Conv2d_0"}
    found = learner(detector, RECIPE, replace(SIMULATION, kept_float=kept), ranges)
    codes, logits = found.outputs(pixels)
    assert len(np.unique(codes)) <= 256 < len(np.unique(logits))
    graph = found._outputs.get_concrete_function().graph
    kinds = [operation.type for operation in graph.get_operations()]
    # Rounded activations but the image, which is float here; rounded kernels.
    assert kinds.count("FakeQuantWithMinMaxVars") == 27 + 8 + 1
    assert kinds.count("Round") == len(layers(detector.spec)) - len(kept)


@pytest.mark.slow
def test_a_training_taken_up_again_ends_with_the_same_weights_and_ranges(detector: Detector, ranges: Ranges) -> None:
    recipe = replace(RECIPE, distillation_weight=0.5)
    simulated = (SIMULATION, ranges)
    # The last batch is smaller, and the ranges are held still by then.
    steps = [(batch_of(detector, images, images), images > 2) for images in (4, 4, 2, 2)]
    whole, second = (learner(detector, recipe, *simulated) for _ in range(2))
    states, losses = [whole.state()], []
    for batch, is_observing in steps:
        losses.append(whole.step(batch, 1e-3, is_observing))
        states.append(whole.state())
    second.restore(states[2])
    assert [second.step(batch, 1e-3, is_observing) for batch, is_observing in steps[2:]] == losses[2:]
    assert not changed(second.state(), states[-1])
    assert second.detector().sha256 == whole.detector().sha256 != detector.sha256
    check_first_step(whole, states, ranges, steps[0][0], detector)
    check_that_asking_changes_nothing(second, states[2], detector)


@pytest.mark.slow
def test_keras_and_torch_start_from_the_same_losses_and_ranges(detector: Detector, ranges: Ranges) -> None:
    pytest.importorskip("torchao")
    from tasks.quantize.qat_torch import TorchLearner

    simulation = replace(SIMULATION, weight_bits=4, kept_float=frozenset({"Conv2d_0", "BoxPredictor_0_scores"}))
    recipe, batch = replace(RECIPE, distillation_weight=0.5), batch_of(detector, 4)
    learners = [learner(detector, recipe, simulation, ranges), TorchLearner(detector, recipe, simulation, ranges)]
    losses = [astuple(each.step(batch, 1e-3, is_observing=True)) for each in learners]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    one, other = (each.ranges() for each in learners)
    assert one.keys() == other.keys()
    for name in one.keys() - {"image"}:
        assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-4), name


def check_first_step(
    first: Any, states: list[dict[str, np.ndarray]], ranges: Ranges, batch: Batch, detector: Detector
) -> None:
    """Ranges move by a hundredth of the way to what was seen; the heads of one role have one."""
    moved = changed(*states[:2])
    for layer in layers(detector.spec):
        kernel = "depthwise_kernel" if layer.kind == "depthwise" else "kernel"
        assert {f"{layer.name}/{kernel}", f"{layer.name}/bias"} <= moved
    first.restore(states[1])
    found = first.ranges()
    assert found.keys() == ranges.keys()
    low, high = batch.pixels.min() / 127.5 - 1, batch.pixels.max() / 127.5 - 1
    for one, before, seen in zip(found["image"], ranges["image"], (low, high), strict=True):
        assert one == pytest.approx(0.99 * before + 0.01 * seen, abs=1e-6)
    assert len({found[f"BoxPredictor_{index}_scores"] for index in range(6)}) == 1
    assert found["BoxPredictor_0_scores"] != ranges["BoxPredictor_0_scores"]


def check_that_asking_changes_nothing(held: Any, other: dict[str, np.ndarray], detector: Detector) -> None:
    """Neither do updates move ranges that are held."""
    before, batch = held.state(), batch_of(detector, 3, seed=9)
    losses = held.evaluate(batch)
    held.outputs(batch.pixels)
    assert not changed(before, held.state())
    assert held.step(batch, 1e-3, is_observing=False) == losses
    moved = changed(before, held.state())
    assert "Conv2d_0/kernel" in moved
    assert not {name for name in moved if name.endswith("/range")}
    held.restore(other)
    assert not changed(other, held.state())


def test_weight_decay_is_for_kernels_and_gradients_are_scaled_down_together() -> None:
    import tensorflow as tf

    from tasks.training.keras_learner import optimizer_of

    for kind in ("adamw", "sgd"):
        recipe = replace(RECIPE, optimizer=kind, weight_decay=0.1, largest_gradient=1.0)
        for size in (0.0, 100.0):
            kernel, bias = tf.Variable([2.0, 2.0], name="a/kernel"), tf.Variable([2.0], name="a/bias")
            optimizer = optimizer_of(recipe)
            optimizer.build([kernel, bias])
            optimizer.learning_rate.assign(0.5)
            optimizer.apply_gradients([(tf.constant([size, 0.0]), kernel), (tf.constant([0.0]), bias)])
            step = 0.0 if size == 0 else {"adamw": 0.5, "sgd": 0.5 * 1.9}[kind]
            np.testing.assert_allclose(kernel, [1.9 - step, 1.9], rtol=1e-5)
            np.testing.assert_allclose(bias, [2.0])


def test_caps_bound_each_channel(detector: Detector, ranges: Ranges, pixels: np.ndarray) -> None:
    caps = {
        f"{layer.name}/cap": np.linspace(0.1, 1, layer.out_channels).astype(np.float32)
        for layer in layers(detector.spec)
        if layer.kind != "head"
    }
    capped = Detector(detector.spec, detector.tensors | caps)
    found = learner(capped, RECIPE, SIMULATION, dict.fromkeys(ranges, (-1.0, 1.0)))
    import tf_keras

    part = tf_keras.Model(found._model.input, found._model.get_layer("Conv2d_0_activation").output)
    values = np.asarray(part(pixels.astype(np.float32) / 127.5 - 1, training=False))
    assert (values.max((0, 1, 2)) <= caps["Conv2d_0/cap"] + 1 / 255).all()
    assert found.detector().sha256 == capped.sha256


def test_what_the_library_leaves_out_is_found(
    detector: Detector, ranges: Ranges, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorflow_model_optimization.quantization import keras as tfmot

    from tasks.training.keras_graph import detector_graph

    left = detector_graph(detector, lambda layer, name: layer)
    monkeypatch.setattr(tfmot, "quantize_apply", lambda *_, **__: left)
    with pytest.raises(QuantizationFailed, match=r"should be quantized by .* has it quantized by None"):
        learner(detector, RECIPE, SIMULATION, ranges)


def test_foreign_ranges_and_states_are_refused(floating: Any, detector: Detector, ranges: Ranges) -> None:
    less = {name: ends for name, ends in ranges.items() if name != "Conv2d_3_depthwise"}
    with pytest.raises(QuantizationFailed, match="they lack Conv2d_3_depthwise"):
        learner(detector, RECIPE, SIMULATION, less)
    with pytest.raises(ValueError, match="another learner: they differ in Conv2d_0/kernel"):
        floating.restore({name: values for name, values in floating.state().items() if name != "Conv2d_0/kernel"})
