"""Activation ranges: the least and greatest value of every activation tensor over representative images."""

import warnings
from typing import Any

import numpy as np

from tasks.detector.weights import Detector
from tasks.identity import sha256_of
from tasks.quantize.flatbuffer import element_type, read, text
from tasks.quantize.float_flatbuffer import float_flatbuffer

Ranges = dict[str, tuple[float, float]]
"""(minimum, maximum) by name of the tensor in the float flatbuffer; input, activations and outputs."""


def calibrate(detector: Detector, pixels: np.ndarray, sizes: tuple[int, ...]) -> dict[int, Ranges]:
    """Records the activation ranges of a detector; the calibration of every static scheme on LiteRT.

    Args:
        detector: Architecture and weights.
        pixels: (N, S, S, 3) uint8 RGB.
        sizes: Sample sizes, each at least 1 and at most N.

    Returns:
        By sample size, the ranges over the first `size` images. Toolchains that ask for the same images again in
        this process get the same ranges without another pass.

    Raises:
        ValueError: If a size is out of range or the images do not fit the detector.
    """
    side = detector.spec.image_size
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
        raise ValueError(
            f"the images are {pixels.dtype}{pixels.shape}; the detector wants uint8 (N, {side}, {side}, 3)"
        )
    if not sizes or min(sizes) < 1 or max(sizes) > len(pixels):
        raise ValueError(f"the sample sizes are {sizes}; each must be from 1 to the number of images, {len(pixels)}")
    wanted = tuple(sorted(set(sizes)))
    images = np.ascontiguousarray(pixels[: wanted[-1]])
    key = (detector.sha256, sha256_of(images.tobytes()), wanted)
    if key not in _LAST:
        ranges = activation_ranges(float_flatbuffer(detector), images, wanted)
        _LAST.clear()
        _LAST[key] = ranges
    return _LAST[key]


_LAST: dict[tuple[str, str, tuple[int, ...]], dict[int, Ranges]] = {}
"""The one result that `calibrate` remembers, by detector, images and sizes: both toolchains ask for the same."""


def activation_ranges(model: bytes, pixels: np.ndarray, sizes: tuple[int, ...]) -> dict[int, Ranges]:
    """Runs a float flatbuffer on images and records the range of each float tensor that is not a constant.

    Args:
        model: A .tflite with one float32 input.
        pixels: (N, S, S, 3) uint8 RGB, fed one by one, in order, as x / 127.5 - 1.
        sizes: Sample sizes at which the ranges are kept.

    Returns:
        Ranges over the first `size` images, by size.
    """
    interpreter = _interpreter(model)
    image_index = int(interpreter.get_input_details()[0]["index"])
    tensors = _activations(model)
    kept: dict[int, Ranges] = {}
    running: Ranges = {}
    for count, image in enumerate(pixels[: max(sizes)], start=1):
        interpreter.set_tensor(image_index, representative(image))
        interpreter.invoke()
        for name, index in tensors.items():
            values = interpreter.get_tensor(index)
            low, high = running.get(name, (np.inf, -np.inf))
            running[name] = (min(low, float(values.min())), max(high, float(values.max())))
        if count in sizes:
            kept[count] = dict(running)
    return kept


def representative(image: np.ndarray) -> np.ndarray:
    """Returns what the detector is fed for an image (S, S, 3) uint8: (1, S, S, 3) float32 in [-1, 1]."""
    return (image[None].astype(np.float32) / np.float32(127.5)) - np.float32(1)


def _interpreter(model: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        # It warns of the memory that keeping all tensors takes; they are what this pass is for.
        warnings.simplefilter("ignore", UserWarning)
        # XNNPACK stays on: its ranges agree with those of TensorFlow's calibrator to 1e-6 of the range, and a pass
        # takes 25 ms an image in place of 65.
        interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    return interpreter


def _activations(model: bytes) -> dict[str, int]:
    """Index of each float32 tensor that is computed or fed, by name."""
    graph = read(model).subgraphs[0]
    indices = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return {text(graph.tensors[i].name): int(i) for i in indices if element_type(graph.tensors[i]) == "float32"}
