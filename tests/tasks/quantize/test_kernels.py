"""What kernels store is read as it is meant."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.quantize.expectations import codebook_limit
from tasks.quantize.kernels import granularity
from tasks.quantize.layer_names import layer_names
from tasks.quantize.stored_weights import codebook_size, unpacked

INT8 = 9
"""The code of the element type in LiteRT's schema."""


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=60))
def test_int4_weights_lie_two_in_a_byte_the_low_half_first(values: list[int]) -> None:
    padded = np.array([*values, *[0] * (len(values) % 2)], np.int8)
    packed = (padded[0::2] & 15) | (padded[1::2] << 4)
    assert unpacked(packed.tobytes(), "int4", (1, len(values)), 0).tolist() == [values]


@pytest.mark.parametrize("element_type", ["float32", "float16", "int8"])
def test_output_channels_come_first_wherever_they_are_stored(element_type: str) -> None:
    stored = np.arange(24).reshape(1, 2, 3, 4).astype(element_type)
    depthwise = unpacked(stored.tobytes(), element_type, stored.shape, 3)
    assert depthwise.tolist() == [stored[..., channel].reshape(-1).tolist() for channel in range(4)]
    convolution = unpacked(stored.tobytes(), element_type, stored.shape, 1)
    assert convolution.tolist() == [stored[:, channel].reshape(-1).tolist() for channel in range(2)]


def test_weights_of_an_unknown_type_are_refused() -> None:
    with pytest.raises(ValueError, match="weights are stored as int2"):
        unpacked(b"\0", "int2", (1, 4), 0)


@given(st.lists(st.lists(st.integers(-128, 127), min_size=7, max_size=7), min_size=1, max_size=5))
def test_a_codebook_is_what_one_channel_needs(rows: list[list[int]]) -> None:
    needed = max(len(set(row)) for row in rows)
    for kind in (np.int8, np.float32, np.float16):
        assert codebook_size([np.array(rows, kind)]) == needed
    narrow = np.array([[1, 2]], np.int8)
    assert codebook_size([narrow, np.array(rows, np.int8), narrow]) == max(needed, 2)


def test_no_kernels_need_no_codebook() -> None:
    assert codebook_size([]) == 0


@pytest.mark.parametrize(
    ("transform", "limit"),
    [("none", None), ("equalized", None), ("clustered_16", 16), ("clustered_tfmot_8", 8), ("binary", 2)],
)
def test_transforms_limit_the_codebook(transform: str, limit: int | None) -> None:
    assert codebook_limit(transform) == limit


def quantized(scales: list[float], weights: list[list[int]]) -> str | None:
    stored = np.array(weights, np.int8)
    tensor = SimpleNamespace(
        buffer=0, type=INT8, shape=stored.shape, quantization=SimpleNamespace(scale=np.array(scales, np.float32))
    )
    kernel: Any = SimpleNamespace(weights=tensor, channels=len(weights), channel_axis=0)
    model = SimpleNamespace(buffers=[SimpleNamespace(data=np.frombuffer(stored.tobytes(), np.uint8))])
    return granularity(model, kernel)


def test_granularity_is_how_many_scales_there_are() -> None:
    assert quantized([], [[1], [2]]) is None
    assert quantized([0.5], [[1], [2]]) == "per_tensor"
    assert quantized([0.5, 0.25], [[1], [2]]) == "per_channel"


def test_one_scale_written_for_each_channel_is_one_scale() -> None:
    assert quantized([0.5, 0.5], [[127, 3], [-60, 2]]) == "per_tensor"


def test_channels_that_each_choose_the_same_scale_are_of_either_granularity() -> None:
    assert quantized([0.5, 0.5], [[127, 3], [2, -127]]) is None


def test_one_channel_is_of_either_granularity() -> None:
    assert quantized([0.5], [[127, 3]]) is None


def kernel_of(output: str, weights: str) -> Any:
    return SimpleNamespace(output=SimpleNamespace(name=output.encode()), weights=SimpleNamespace(name=weights.encode()))


def test_layers_are_found_in_joined_names() -> None:
    first = kernel_of("ssd/Conv2d_0/Relu6;ssd/Conv2d_0/BiasAdd;ssd/Conv2d_0/Conv2D", "ssd/Conv2d_0/Conv2D")
    other = kernel_of("ssd/BoxPredictor_0_boxes/BiasAdd", "arith.constant")
    by_weights = kernel_of("tensor 5", "ssd/Extra_3_1x1/Conv2D")
    assert layer_names([first, other, by_weights]) == ("Conv2d_0", "BoxPredictor_0_boxes", "Extra_3_1x1")


def test_weights_stored_once_for_two_layers_do_not_confuse_them() -> None:
    shared = "ssd/Conv2d_7_pointwise/Conv2D;ssd/Conv2d_8_pointwise/Conv2D"
    pair = [kernel_of(f"ssd/Conv2d_{block}_pointwise/Relu6", shared) for block in (7, 8)]
    assert layer_names(pair) == ("Conv2d_7_pointwise", "Conv2d_8_pointwise")


@pytest.mark.parametrize("output", ["tensor 1", "ssd/Conv2d_0/Relu6", "ssd/Conv2d_1_depthwise_flat/Reshape"])
def test_names_that_do_not_match_one_to_one_are_no_names(output: str) -> None:
    assert layer_names([kernel_of("ssd/Conv2d_0/Relu6", "a"), kernel_of(output, "b")]) == ()
