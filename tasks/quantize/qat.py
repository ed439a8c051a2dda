"""Quantization-aware training as a scheme: what is simulated, and where its ranges begin."""

from tasks.detector.weights import Detector
from tasks.quantize.schemes import Qat
from tasks.quantize.statistics import Statistics
from tasks.training.learner import Ranges, Simulation


def simulation_of(scheme: Qat, kept_float: tuple[str, ...]) -> Simulation:
    """Says what a training simulates.

    Args:
        scheme: What is to be made in the end.
        kept_float: Names of layers that stay in float.

    Returns:
        The same for every toolchain.
    """
    raise NotImplementedError


def first_ranges(scheme: Qat, detector: Detector, statistics: Statistics | None) -> Ranges:
    """Chooses the ranges that training starts from: those of post-training quantization.

    Args:
        scheme: Its range estimator.
        detector: The architecture.
        statistics: Of the activations of the float32 .tflite of this detector, unless the estimator is `fixed`.

    Returns:
        The ranges of all layers and the image, the heads of one role joined.

    Raises:
        QuantizationFailed: If the statistics are missing, or of another detector.
    """
    raise NotImplementedError
