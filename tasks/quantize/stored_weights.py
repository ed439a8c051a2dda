"""Stored weights: the numbers that a kernel stores, as they are stored, by output channel."""

from collections.abc import Iterable

import numpy as np

_PLAIN = ("float32", "float16", "int16", "int8", "uint8")
_INTEGER_CODES = 256
"""Values that an 8-bit weight can have."""


def unpacked(stored: bytes, element_type: str, shape: tuple[int, ...], channel_axis: int) -> np.ndarray:
    """Reads stored weights.

    Args:
        stored: Content of the constant.
        element_type: `int4` or a type that numpy has; two int4 share a byte, the low half first
            (tensorflow/lite/kernels/internal/portable_tensor_utils.cc, `UnpackPackedIntToInt8`).
        shape: Shape of the tensor.
        channel_axis: Axis of `shape` that counts the output channels.

    Returns:
        (channels, weights of one) in the stored type, int4 as int8.

    Raises:
        ValueError: If type or length do not fit.
    """
    if element_type == "int4":
        packed = np.frombuffer(stored, np.int8)
        values = np.column_stack([packed << 4 >> 4, packed >> 4]).reshape(-1)[: int(np.prod(shape))]
    elif element_type in _PLAIN:
        values = np.frombuffer(stored, element_type)
    else:
        raise ValueError(f"weights are stored as {element_type}")
    return np.moveaxis(values.reshape(shape), channel_axis, 0).reshape(shape[channel_axis], -1)


def codebook_size(weights: Iterable[np.ndarray]) -> int:
    """Counts the codes that the weights of one output channel are made of.

    Args:
        weights: For each kernel (channels, weights of one), in any type.

    Returns:
        Most distinct values of one channel, over all kernels; 0 without kernels.
    """
    most = 0
    for values in sorted(weights, key=lambda item: item.shape[1], reverse=True):
        # A channel has no more values than weights, so that the small ones need no look.
        if values.shape[1] > most:
            most = max(most, _most_distinct(values))
    return most


def _most_distinct(values: np.ndarray) -> int:
    if values.dtype == np.int8:
        # Flat 32-bit places are a third faster than an index for each axis.
        rows = np.arange(0, len(values) * _INTEGER_CODES, _INTEGER_CODES, dtype=np.int32)[:, None]
        met = np.zeros(len(values) * _INTEGER_CODES, bool)
        met[np.add(rows, values.view(np.uint8), dtype=np.int32)] = True
        return int(met.reshape(-1, _INTEGER_CODES).sum(axis=1).max())
    ordered = np.sort(values, axis=1)
    return 1 + int((ordered[:, 1:] != ordered[:, :-1]).sum(axis=1).max())
