"""The training graph of a detector in Keras 2. Import this module inside functions only: it imports TensorFlow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import RELU6_CAP, Detector

IMAGE = "image"
"""Name of the layer that hands on the input."""

JOINED = {"boxes": "joined_boxes", "scores": "joined_scores"}
"""Name of the layer that joins the heads, by role."""

Annotate = Callable[[Any, str], Any]
"""(Keras layer, name) -> the layer as the graph takes it; see `detector_graph`."""


class CappedReLU(tf_keras.layers.Layer):
    """A ReLU with an upper bound for each channel."""

    def __init__(self, cap: list[float], **settings: Any) -> None:
        """Takes the bounds.

        Args:
            cap: Greatest activation of each channel.
            **settings: Of a Keras layer.
        """
        super().__init__(**settings)
        self.cap = cap

    def call(self, inputs: Any) -> Any:
        """Bounds (B, H, W, channels) values."""
        return tf.minimum(tf.nn.relu(inputs), tf.constant(self.cap, inputs.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer can be made of anew."""
        return {**super().get_config(), "cap": self.cap}


def activation_name(layer: Layer) -> str:
    """Returns the name of the Keras layer whose output is quantized for a layer: that of its ReLU, or of the join.

    Args:
        layer: A layer of the detector.
    """
    return JOINED[role_of(layer)] if layer.kind == "head" else f"{layer.name}_activation"


def role_of(head: Layer) -> str:
    """Returns the role of a head: `boxes` or `scores`."""
    return head.name.rsplit("_", 1)[1]


def detector_graph(detector: Detector, annotate: Annotate) -> Any:
    """Builds a detector for training: linear convolutions, with activation functions as layers of their own.

    Args:
        detector: The architecture, and caps if its ReLUs have some. Its weights are not given to the graph.
        annotate: Called with each Keras layer that has weights or makes an activation that may be quantized: the
            convolutions under their canonical names, their activations under `activation_name`, the input under
            `IMAGE`. Its result takes the layer's place.

    Returns:
        A functional `tf_keras.Model`. Input: (B, S, S, 3) float32 RGB in [-1, 1]. Outputs: codes (B, A, 4), and logits
        (B, A, classes), the scores before the sigmoid.
    """
    spec = detector.spec
    pixels = tf_keras.Input((spec.image_size, spec.image_size, 3), dtype="float32")
    outputs: dict[str, Any] = {IMAGE: annotate(tf_keras.layers.Activation("linear", name=IMAGE), IMAGE)(pixels)}
    heads: dict[str, list[Any]] = {"boxes": [], "scores": []}
    widths = {"boxes": 4, "scores": len(spec.class_ids)}
    for layer in layers(spec):
        output = annotate(_convolution(layer), layer.name)(outputs[layer.source])
        if layer.kind == "head":
            role = role_of(layer)
            heads[role].append(tf_keras.layers.Reshape((-1, widths[role]), name=f"{layer.name}_flat")(output))
            continue
        name = activation_name(layer)
        outputs[layer.name] = annotate(_activation(detector.tensors.get(f"{layer.name}/cap"), name), name)(output)
    joined = [
        annotate(tf_keras.layers.Concatenate(axis=1, name=JOINED[role]), JOINED[role])(parts)
        for role, parts in heads.items()
    ]
    return tf_keras.Model(pixels, joined, name="ssd_mobilenet_v1")


def parameters_of(model: Any, layer: Layer) -> tuple[Any, Any]:
    """Returns the variables (weights, bias) of a layer in a graph, whatever wraps it.

    Args:
        model: A graph whose convolutions have their canonical names.
        layer: The layer.
    """
    weights, bias = model.get_layer(layer.name).trainable_weights
    return weights, bias


def _convolution(layer: Layer) -> Any:
    # Zeros: the weights come from a detector, and random ones would be drawn for nothing.
    settings: dict[str, Any] = {"strides": layer.stride, "padding": "same", "name": layer.name}
    if layer.kind == "depthwise":
        return tf_keras.layers.DepthwiseConv2D(layer.kernel, depthwise_initializer="zeros", **settings)
    return tf_keras.layers.Conv2D(layer.out_channels, layer.kernel, kernel_initializer="zeros", **settings)


def _activation(cap: np.ndarray | None, name: str) -> Any:
    if cap is None:
        return tf_keras.layers.ReLU(RELU6_CAP, name=name)
    return CappedReLU(cap.tolist(), name=name)
