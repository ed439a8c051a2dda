"""What is particular to LiteRT: quantized inputs and outputs, and damaged files."""

import numpy as np
import pytest

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.runtimes.base import checked, input_table, runtime_of
from tasks.types import RuntimeSettings
from tests.tasks.runtimes.tiny_detector import pixels, tiny_float32, tiny_int8


def run(data: bytes, images: np.ndarray, threads: int = 1):
    session = runtime_of("litert").open(data, RuntimeSettings("litert", threads))
    try:
        return session.run(images)
    finally:
        session.close()


def test_a_fully_quantized_build_gives_nearly_the_float_outputs():
    images = pixels(3)
    boxes, scores = run(tiny_float32(), images)
    int8_boxes, int8_scores = run(tiny_int8(), images)
    assert int8_scores.dtype == int8_boxes.dtype == np.float32
    assert np.corrcoef(boxes.ravel(), int8_boxes.ravel())[0, 1] > 0.95
    assert np.abs(scores - int8_scores).mean() < 0.05


def test_a_quantized_input_gets_its_own_element_type():
    session = runtime_of("litert").open(tiny_int8(), RuntimeSettings())
    assert session.prepare(pixels(1)).dtype == np.uint8
    session.close()


def test_threads_do_not_change_the_outputs():
    images = pixels(2)
    for one, two in zip(run(tiny_float32(), images), run(tiny_float32(), images, threads=2), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_unreadable_and_does_not_crash(share):
    data = tiny_int8()
    with pytest.raises(ArtifactUnreadable):
        run(data[: int(len(data) * share)], pixels(1))


def test_a_file_without_the_identifier_is_called_foreign():
    with pytest.raises(ArtifactUnreadable, match=r"not a \.tflite file"):
        run(b"PK\x03\x04" + bytes(100), pixels(1))


def test_images_of_another_size_fail_as_inference():
    with pytest.raises(InferenceFailed):
        run(tiny_float32(), np.zeros((1, 32, 32, 3), np.uint8))


def test_float_input_spans_minus_one_to_one():
    table = input_table(np.dtype(np.float32))
    assert (table[0], table[255]) == (-1, 1)
    np.testing.assert_array_equal(table, np.arange(256, dtype=np.float32) / np.float32(127.5) - 1)


@pytest.mark.parametrize("dtype,zero_point", [(np.uint8, 127), (np.int8, -1)])
def test_quantized_input_is_within_half_a_step_of_the_pixel_at_the_usual_scale(dtype, zero_point):
    scale = float(np.float32(1 / 127.5))
    steps = input_table(np.dtype(dtype), scale, zero_point).astype(np.float64) - zero_point
    assert np.abs(steps - (np.arange(256) - 127.5)).max() == pytest.approx(0.5, abs=1e-4)
    assert (np.diff(steps) >= 0).all()


def test_quantized_input_is_the_nearest_step_and_saturates():
    assert input_table(np.dtype(np.int8), 0.25, 3)[[0, 100, 255]].tolist() == [-1, 2, 7]
    assert input_table(np.dtype(np.int8), 1 / 256, 0)[[0, 255]].tolist() == [-128, 127]


def test_outputs_that_do_not_belong_together_are_refused():
    with pytest.raises(InferenceFailed, match="shapes"):
        checked(np.zeros((1, 5, 4), np.float32), np.zeros((1, 6, 9), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_numbers_are_refused(value):
    scores = np.zeros((1, 5, 9), np.float32)
    scores[0, 2, 3] = value
    with pytest.raises(InferenceFailed, match="1 of the scores"):
        checked(np.zeros((1, 5, 4), np.float32), scores)
