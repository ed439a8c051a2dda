"""One pass over the images serves every sample size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.detector.weights import Detector
from tasks.quantize.float_flatbuffer import float_flatbuffer
from tasks.quantize.ranges import Ranges, activation_ranges, calibrate, representative


def test_ranges_at_a_size_are_those_of_a_pass_of_that_size(
    detector: Detector, pixels: np.ndarray, calibrations: dict[int, Ranges]
) -> None:
    for size, ranges in calibrations.items():
        assert ranges == activation_ranges(float_flatbuffer(detector), pixels[:size], (size,))[size]


def test_larger_samples_have_wider_ranges(calibrations: dict[int, Ranges]) -> None:
    small, large = calibrations[2], calibrations[4]
    assert all(large[name][0] <= low and high <= large[name][1] for name, (low, high) in small.items())
    assert small != large


def test_ranges_agree_with_the_calibrator_of_tensorflow(
    detector: Detector, pixels: np.ndarray, calibrations: dict[int, Ranges]
) -> None:
    theirs = tensorflow_ranges(float_flatbuffer(detector), pixels)
    ours = calibrations[len(pixels)]
    assert theirs.keys() == ours.keys()
    for name, (low, high) in theirs.items():
        assert ours[name] == pytest.approx((low, high), abs=1e-5 * (high - low))


def tensorflow_ranges(model: bytes, pixels: np.ndarray) -> Ranges:
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    from tasks.quantize.flatbuffer import read, text

    # The wrapper reads the model from the calibrator's bytes, so the calibrator has to outlive it.
    calibrator = Calibrator(model)
    calibrated = calibrator.calibrate(lambda: ([representative(image)] for image in pixels))
    return {
        text(tensor.name): (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for tensor in read(calibrated).subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.min is not None
    }


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, 3))
def test_ranges_of_parts_merge_into_those_of_the_whole(
    detector: Detector, pixels: np.ndarray, calibrations: dict[int, Ranges], cut: int
) -> None:
    model, total = float_flatbuffer(detector), len(pixels)
    first = activation_ranges(model, pixels[:cut], (cut,))[cut]
    second = activation_ranges(model, pixels[cut:], (total - cut,))[total - cut]
    merged = {name: (min(first[name][0], second[name][0]), max(first[name][1], second[name][1])) for name in first}
    assert merged == calibrations[total]


@pytest.mark.parametrize("sizes", [(), (0,), (5,), (2, 5)])
def test_sample_sizes_out_of_range_are_refused(detector: Detector, pixels: np.ndarray, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sample sizes"):
        calibrate(detector, pixels, sizes)


def test_images_of_another_size_are_refused(detector: Detector) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, 64, 64, 3\)"):
        calibrate(detector, np.zeros((2, 32, 32, 3), np.uint8), (2,))


def test_images_are_fed_in_the_range_of_the_detector() -> None:
    image = np.array([[[0, 127, 255]]], np.uint8)
    assert representative(image) == pytest.approx(np.array([[[[-1.0, -0.5 / 127.5, 1.0]]]]))
