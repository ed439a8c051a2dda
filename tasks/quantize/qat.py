"""Quantization-aware training as a scheme: what is simulated, where its ranges begin, and who trains."""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.quantize.builders import Limit
from tasks.quantize.clipping import CLIPPINGS
from tasks.quantize.layer_ranges import IMAGE, layer_ranges
from tasks.quantize.recipe import recipe_of
from tasks.quantize.schemes import Qat, Scheme
from tasks.quantize.statistics import Statistics
from tasks.training.learner import Ranges, Simulation
from tasks.training.learners import PACKAGES_OF_TRAINERS

LIMITS = (
    Limit("weight_algorithm", tuple(CLIPPINGS), "training rounds weights to the nearest integer of their range"),
    Limit(
        "transform", ("none",), "training would undo clustered and binary weights, and moves no caps of equalized ones"
    ),
)
"""What no toolchain can make of a `Qat` scheme, since no trainer can."""


def trainer_packages(scheme: Scheme) -> tuple[str, ...]:
    """Returns the distributions whose versions decide about what training gives; none if nothing is trained."""
    return PACKAGES_OF_TRAINERS[scheme.trainer] if isinstance(scheme, Qat) and scheme.is_trained else ()


def simulation_of(scheme: Qat, kept_float: tuple[str, ...]) -> Simulation:
    """Says what a training simulates.

    Args:
        scheme: What is to be made in the end.
        kept_float: Names of layers that stay in float.

    Returns:
        The same for every toolchain.
    """
    recipe = recipe_of(scheme)
    return Simulation(
        weight_bits=recipe.weight_bits,
        depthwise_bits=recipe.depthwise_bits,
        is_per_channel=recipe.granularity == "per_channel",
        is_symmetric=recipe.is_symmetric,
        kept_float=frozenset(kept_float),
    )


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
    return layer_ranges(scheme, detector, statistics, are_heads_joined=True)


def clipped(scheme: Qat, detector: Detector, kept_float: Collection[str]) -> Detector:
    """Cuts off the weights that training starts from, where the scheme's algorithm does so before it rounds them.

    What is left has the wanted bounds for its greatest magnitudes, so that everybody afterwards, simulation and
    toolchains alike, takes these.

    Args:
        scheme: Its weight algorithm and granularity.
        detector: Float weights as they are.
        kept_float: Names of layers that stay in float.

    Returns:
        The detector itself if nothing is cut off.
    """
    recipe = recipe_of(scheme)
    if scheme.weight_algorithm == "min_max":
        return detector
    clip, tensors = CLIPPINGS[scheme.weight_algorithm], dict(detector.tensors)
    for layer in layers(detector.spec):
        if layer.name in kept_float:
            continue
        weights = tensors[f"{layer.name}/weights"]
        channels = np.moveaxis(weights, _channel_axis(layer), 0)
        rows = channels.reshape(layer.out_channels if recipe.granularity == "per_channel" else 1, -1)
        bound = clip(rows, recipe.depthwise_bits if layer.kind == "depthwise" else recipe.weight_bits)[:, None]
        cut = np.clip(rows, -bound, bound).reshape(channels.shape)
        tensors[f"{layer.name}/weights"] = np.ascontiguousarray(np.moveaxis(cut, 0, _channel_axis(layer)))
    return replace(detector, tensors=tensors)


def _channel_axis(layer: Layer) -> int:
    """Axis of the output channels in canonical weights: HWIO, and HWC1 of depthwise layers."""
    return 2 if layer.kind == "depthwise" else 3


def check_ranges(ranges: Ranges, detector: Detector) -> None:
    """Refuses ranges that are not of a detector, or are none.

    Args:
        ranges: Of activations, as a training gives them.
        detector: The architecture.

    Raises:
        QuantizationFailed: If a layer has no range or there is a foreign one, or an end is not finite.
    """
    wanted = {IMAGE, *(layer.name for layer in layers(detector.spec))}
    wrong = sorted(wanted ^ set(ranges))
    if wrong:
        raise QuantizationFailed(f"the ranges of activations are of another detector: only one of both has {wrong[0]}")
    for name, (low, high) in ranges.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise QuantizationFailed(f"the range of activations of {name} is {low} to {high}")
