"""Layer names: which layer of the detector each kernel of a flatbuffer is."""

import re
from collections.abc import Sequence

from tasks.quantize.flatbuffer import text
from tasks.quantize.kernels import Kernel

_CANONICAL = re.compile(
    r"Conv2d_0|Conv2d_\d+_(?:depthwise|pointwise)|Extra_\d+_(?:1x1|3x3)|BoxPredictor_\d+_(?:boxes|scores)"
)
"""The names of `tasks.detector.ssd_mobilenet_v1.Layer`."""


def layer_names(kernels: Sequence[Kernel]) -> tuple[str, ...]:
    """Matches kernels with layers by the names of their tensors.

    TFLiteConverter joins the names of the operations that it fuses by `;`; each one has the layer as a segment of its
    path: `ssd_mobilenet_v1/Conv2d_0/Relu6;ssd_mobilenet_v1/Conv2d_0/BiasAdd;...`. Both toolchains keep these names.

    Args:
        kernels: The kernels of a flatbuffer.

    Returns:
        The canonical name of each kernel's layer, in order; empty if a kernel has none, or two have the same.
    """
    found = [_layer(kernel) for kernel in kernels]
    names = tuple(name for name in found if name is not None)
    return names if len(set(names)) == len(found) else ()


def layer_of(tensor: str) -> str | None:
    """Finds the layer that a tensor belongs to.

    Args:
        tensor: Name of the tensor, as above.

    Returns:
        The canonical name of the layer; None if the tensor's name holds none, or several.
    """
    segments = {segment for name in tensor.split(";") for segment in name.split("/")}
    names = [segment for segment in segments if _CANONICAL.fullmatch(segment)]
    return names[0] if len(names) == 1 else None


def _layer(kernel: Kernel) -> str | None:
    # Equal weights of two layers may be stored once, under both names; the output is the layer's own.
    return layer_of(text(kernel.output.name)) or layer_of(text(kernel.weights.name))
