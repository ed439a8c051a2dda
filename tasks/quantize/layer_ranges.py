"""Ranges by layer: what toolchains that do not start from a flatbuffer quantize activations over."""

from tasks.detector.weights import Detector
from tasks.quantize.ranges import Ranges
from tasks.quantize.schemes import Scheme
from tasks.quantize.statistics import Statistics


def layer_ranges(scheme: Scheme, detector: Detector, statistics: Statistics | None) -> Ranges:
    """Chooses the range of the input and of each layer's output, by the scheme's range estimator.

    Args:
        scheme: A static scheme.
        detector: Architecture, and caps if its ReLUs have some.
        statistics: Of the activations of the float32 .tflite of this detector, unless the estimator is `fixed`.

    Returns:
        (low, high) by canonical name of the layer, and of the input under `image`. A layer's output is that after its
        activation function; low <= high, and the range reaches to zero only if the estimator makes it so.

    Raises:
        QuantizationFailed: If the statistics are missing, or of another detector.
    """
    raise NotImplementedError
