"""What is observed is what the interpreter computes."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.errors import QuantizationFailed
from tasks.quantize.flatbuffer import read, write
from tasks.quantize.observe import activations, image_statistics, observe, representative, statistics_key
from tasks.quantize.statistics import Statistics, merge


def computed(model: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every activation of one inference, without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=model,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], representative(image))
    interpreter.invoke()
    return {name: interpreter.get_tensor(index) for name, index in activations(read(model)).items()}


def test_statistics_are_of_what_is_computed(source: Callable[[str], bytes], pixels: np.ndarray) -> None:
    model = source("none")
    for image, found in zip(pixels[:2], observe(model, pixels[:2], ["a", "b"]), strict=True):
        for name, values in computed(model, image).items():
            statistics = found.tensor(name)
            span = float(values.max() - values.min())
            assert statistics.count == values.size
            assert (statistics.low, statistics.high) == pytest.approx((values.min(), values.max()), abs=1e-5 * span)
            # XNNPACK rounds otherwise in the last digits, so that some values change their bin.
            moved = np.abs(np.histogram(values, statistics.edges)[0] - statistics.histogram).sum() / 2
            assert moved <= max(3, 0.02 * values.size)


def test_every_activation_is_there_and_no_constant(source: Callable[[str], bytes], pixels: np.ndarray) -> None:
    tree = read(source("none"))
    (found,) = observe(source("none"), pixels[:1], ["a"])
    assert found.tensors == tuple(activations(tree))
    made = [index for operator in tree.subgraphs[0].operators for index in operator.outputs]
    assert len(found.tensors) == len(made) + 1


def test_an_image_has_the_same_statistics_in_any_company(source: Callable[[str], bytes], pixels: np.ndarray) -> None:
    keys = ["a", "b", "c", "d"]
    together = observe(source("none"), pixels, keys)
    alone = [observe(source("none"), pixels[[index]], [keys[index]])[0] for index in reversed(range(len(keys)))]
    assert [part.to_bytes() for part in together] == [part.to_bytes() for part in reversed(alone)]


@pytest.mark.parametrize("shards", [1, 2, 3, 4])
def test_shards_of_images_merge_into_the_same_statistics(
    source: Callable[[str], bytes], statistics: Callable[[int], Statistics], pixels: np.ndarray, shards: int
) -> None:
    parts = [
        merge(*observe(source("none"), pixels[indices], [f"image {index}" for index in indices]))
        for indices in np.array_split(np.arange(len(pixels)), shards)
    ]
    assert merge(*reversed(parts)).to_bytes() == statistics(len(pixels)).to_bytes()


def test_the_statistics_of_an_image_are_small(source: Callable[[str], bytes], pixels: np.ndarray) -> None:
    (found,) = observe(source("none"), pixels[:1], ["a"])
    assert len(found.to_bytes()) < 100_000


def test_images_are_fed_in_the_range_of_the_detector() -> None:
    image = np.array([[[0, 127, 255]]], np.uint8)
    assert representative(image) == pytest.approx(np.array([[[[-1.0, -0.5 / 127.5, 1.0]]]]))


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 64, 64, 3), np.float32), np.zeros((1, 64, 64, 3), np.uint8)],
    ids=["another size", "floats", "fewer than keys"],
)
def test_images_that_do_not_fit_are_refused(source: Callable[[str], bytes], images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"want uint8\(2, 64, 64, 3\)"):
        observe(source("none"), images, ["a", "b"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_named(
    source: Callable[[str], bytes], pixels: np.ndarray, value: float
) -> None:
    tree = read(source("none"))
    graph = tree.subgraphs[0]
    (bias,) = (
        tree.buffers[graph.tensors[operator.inputs[2]].buffer]
        for operator in graph.operators
        if b"BoxPredictor_0_boxes/BiasAdd" in graph.tensors[operator.outputs[0]].name
    )
    bias.data = np.full(len(bias.data) // 4, value, np.float32).view(np.uint8)
    with pytest.raises(QuantizationFailed, match=r"BoxPredictor_0_boxes.* is not finite for the image a"):
        observe(write(tree), pixels[:1], ["a"])


def test_negative_zero_is_zero() -> None:
    plain, negative = (image_statistics("a", ("x",), [np.array([zero], np.float32)]) for zero in (0.0, -0.0))
    assert plain.to_bytes() == negative.to_bytes()


def test_long_tensors_are_counted_whole() -> None:
    values = np.random.default_rng(0).normal(size=100_001).astype(np.float32)
    found = image_statistics("a", ("x",), [values]).tensor("x")
    assert found.histogram.tolist() == np.histogram(values, found.edges)[0].tolist()


def test_kept_statistics_depend_on_model_and_image() -> None:
    keys = {statistics_key(model, image) for model in ("a" * 64, "b" * 64) for image in ("a" * 64, "b" * 64)}
    assert len(keys) == 4
    assert all(len(key) == 64 for key in keys)
