"""Scales of depthwise kernels in the form that LiteRT's hybrid kernel needs."""

import numpy as np

from tasks.quantize.flatbuffer import read, scales, write
from tasks.quantize.kernels import kernels, reads_beyond_scales


def with_scale_of_each_channel(data: bytes) -> bytes:
    """Writes the one scale of each per-tensor depthwise kernel with int8 weights and float activations once a channel.

    Both toolchains write such kernels with a single scale, and LiteRT then reads beyond it (`reads_beyond_scales`).
    With the same scale for every channel the numbers are those of per-tensor quantization.

    Args:
        data: Content of a .tflite file.

    Returns:
        The file, unchanged if it has no such kernel.
    """
    model = read(data)
    short = [kernel for kernel in kernels(model) if reads_beyond_scales(kernel)]
    for kernel in short:
        quantization = kernel.weights.quantization
        quantization.scale = np.repeat(scales(kernel.weights), kernel.channels)
        quantization.zeroPoint = np.zeros(kernel.channels, np.int64)
        quantization.quantizedDimension = kernel.channel_axis
    return write(model) if short else data
