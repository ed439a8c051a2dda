"""Observation: running a float flatbuffer on calibration images and recording what its activations are."""

import math
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from tasks.errors import QuantizationFailed
from tasks.identity import key_of
from tasks.quantize.flatbuffer import element_type, read, text
from tasks.quantize.statistics import BINS, FORMAT, Statistics, bin_grid
from tasks.runtimes.base import input_table

OBSERVER = "ai-edge-litert"
"""The distribution that runs what is observed."""

_CHUNK = 32768
"""Elements that are counted at a time: scaled values and bin numbers of a chunk stay in the second-level cache, which
makes counting a quarter faster than whole tensors at once."""


def statistics_key(model_sha256: str, image_sha256: str) -> str:
    """Names the kept statistics of one image by all that they depend on.

    Args:
        model_sha256: sha256 of the float .tflite.
        image_sha256: sha256 of the image's pixels as they are fed.

    Returns:
        The key.
    """
    return key_of("activation statistics", FORMAT, BINS, model_sha256, image_sha256, version(OBSERVER))


def observe(model: bytes, pixels: np.ndarray, keys: Sequence[str]) -> tuple[Statistics, ...]:
    """Runs a float flatbuffer on images and records statistics of each float tensor that is not a constant.

    Args:
        model: A .tflite with one float32 input (1, S, S, 3).
        pixels: (N, S, S, 3) uint8 RGB.
        keys: Key of each image; distinct.

    Returns:
        The statistics of each image alone, in order.

    Raises:
        ValueError: If the images do not fit the model, or their number is not that of the keys.
        QuantizationFailed: If an activation is infinite or not a number.
    """
    interpreter = _interpreter(model)
    feed = interpreter.get_input_details()[0]
    wanted = (len(keys), *(int(length) for length in feed["shape"][1:]))
    if pixels.dtype != np.uint8 or pixels.shape != wanted:
        raise ValueError(f"the images are {pixels.dtype}{pixels.shape}; the model and the keys want uint8{wanted}")
    tensors = activations(read(model))
    observed = []
    for image, key in zip(pixels, keys, strict=True):
        interpreter.set_tensor(feed["index"], representative(image))
        interpreter.invoke()
        # Views, not copies, of the interpreter's memory, which are gone before it runs again.
        values = [interpreter.tensor(index)().reshape(-1) for index in tensors.values()]
        observed.append(image_statistics(key, tuple(tensors), values))
        del values
    return tuple(observed)


def activations(tree: Any) -> dict[str, int]:
    """Lists the float32 tensors that are fed or computed.

    Args:
        tree: A float flatbuffer, as `tasks.quantize.flatbuffer.read` gives it.

    Returns:
        Index of each by its name: the input, then what each operator makes, in order.
    """
    graph = tree.subgraphs[0]
    indices = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return {text(graph.tensors[i].name): int(i) for i in indices if element_type(graph.tensors[i]) == "float32"}


def representative(image: np.ndarray) -> np.ndarray:
    """Returns what the detector is fed for an image (S, S, 3) uint8: (1, S, S, 3) float32 in [-1, 1]."""
    return input_table(np.dtype(np.float32))[image[None]]


def image_statistics(key: str, tensors: tuple[str, ...], values: Sequence[np.ndarray]) -> Statistics:
    """Counts the values of tensors for one image.

    Args:
        key: The image's key.
        tensors: Names of the tensors.
        values: Of each tensor, (elements,) float32, at least one element.

    Returns:
        The statistics.

    Raises:
        QuantizationFailed: If a value is infinite or not a number.
    """
    # Adding 0.0 turns -0.0 into 0.0: equal values, but not equal bytes.
    minima = np.array([part.min() for part in values], np.float32) + np.float32(0)
    maxima = np.array([part.max() for part in values], np.float32) + np.float32(0)
    for name, low, high in zip(tensors, minima, maxima, strict=True):
        if not (math.isfinite(low) and math.isfinite(high)):
            raise QuantizationFailed(f"the activation {name} is not finite for the image {key}: {low} to {high}")
    exponents, firsts = bin_grid(minima, maxima)
    grids = zip(values, exponents.tolist(), firsts.tolist(), strict=True)
    return Statistics(
        tensors=tensors,
        images=(key,),
        minima=minima[None],
        maxima=maxima[None],
        counts=np.array([part.size for part in values], np.int64),
        exponents=exponents,
        firsts=firsts,
        histograms=np.stack([_count(part, exponent, first) for part, exponent, first in grids]),
    )


def _count(values: np.ndarray, exponent: int, first: int) -> np.ndarray:
    """Counts values in bins, (BINS,) int64; exactly, since it scales by powers of two only."""
    # Where bins start at 0, as after ReLU, the cast to integers rounds down by itself, and what is too small for
    # float32 becomes 0, as it should. Elsewhere tiny negative values must not, and float64 holds them all.
    scaled = np.empty(min(_CHUNK, values.size), np.float64 if first else np.float32)
    bins = np.empty(scaled.size, np.intp)
    counts = np.zeros(BINS, np.int64)
    for start in range(0, values.size, _CHUNK):
        size = min(_CHUNK, values.size - start)
        np.multiply(values[start : start + size], scaled.dtype.type(2.0**-exponent), out=scaled[:size])
        if first:
            np.floor(scaled[:size], out=scaled[:size])
            np.subtract(scaled[:size], first, out=scaled[:size])
        np.copyto(bins[:size], scaled[:size], casting="unsafe")
        counts += np.bincount(bins[:size], minlength=BINS)
    return counts


def _interpreter(model: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        # It warns of the memory that keeping all tensors takes; they are what this pass is for.
        warnings.simplefilter("ignore", UserWarning)
        # XNNPACK stays on: its ranges agree with those of TensorFlow's calibrator to 1e-6 of the range, and an
        # inference takes 15 ms in place of 55.
        interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    return interpreter
