"""Training from scratch, with batch norms that are folded in the end.

Import this module inside functions only: it imports TensorFlow.
"""

import math
from typing import Any

import numpy as np
import tf_keras

from tasks.detector.ssd_mobilenet_v1 import Layer, SSDMobileNetV1Spec, layers
from tasks.detector.weights import RELU6_CAP, Detector
from tasks.training.keras_graph import role_of
from tasks.training.keras_learner import GraphLearner
from tasks.training.learner import Ranges
from tasks.training.recipe import Recipe

_BATCH_NORM_MOMENTUM = 0.99
_BATCH_NORM_EPSILON = 1e-3
_FIRST_SCORE = 0.01


class ScratchLearner(GraphLearner):
    """A detector that learns in Keras from first weights of chance; see `tasks.training.learner.Learner`.

    Batch norms use and gather the statistics of the batch where `is_observing`, else what they have gathered.
    """

    def __init__(self, spec: SSDMobileNetV1Spec, recipe: Recipe) -> None:
        """Draws the first weights. Sets the seeds of Python, NumPy and TensorFlow.

        Args:
            spec: The architecture.
            recipe: How it is trained; its seed is that of the first weights. There is no teacher to distil from.
        """
        tf_keras.utils.set_random_seed(recipe.seed)
        super().__init__(scratch_graph(spec), spec, recipe)
        self._spec = spec

    def detector(self) -> Detector:
        """See `Learner.detector`; the batch norms are folded into the convolutions."""
        return fold(self._model, self._spec)

    def ranges(self) -> Ranges:
        """See `Learner.ranges`: none."""
        return {}


def scratch_graph(spec: SSDMobileNetV1Spec) -> Any:
    """Builds a detector in Keras 2 with its batch norms, freshly initialized from TensorFlow's global seed.

    Args:
        spec: The architecture.

    Returns:
        A functional `tf_keras.Model`. Input: (B, S, S, 3) float32 RGB in [-1, 1]. Outputs: codes (B, A, 4), and logits
        (B, A, classes), the scores before the sigmoid.
    """
    image = tf_keras.Input((spec.image_size, spec.image_size, 3), dtype="float32")
    outputs: dict[str, Any] = {"image": image}
    heads: dict[str, list[Any]] = {"boxes": [], "scores": []}
    widths = {"boxes": 4, "scores": len(spec.class_ids)}
    for layer in layers(spec):
        output = _convolution(layer)(outputs[layer.source])
        if layer.kind == "head":
            role = role_of(layer)
            heads[role].append(tf_keras.layers.Reshape((-1, widths[role]))(output))
            continue
        output = tf_keras.layers.BatchNormalization(
            momentum=_BATCH_NORM_MOMENTUM, epsilon=_BATCH_NORM_EPSILON, name=f"{layer.name}_norm"
        )(output)
        outputs[layer.name] = tf_keras.layers.ReLU(RELU6_CAP)(output)
    return tf_keras.Model(image, [tf_keras.layers.Concatenate(axis=1)(parts) for parts in heads.values()])


def fold(model: Any, spec: SSDMobileNetV1Spec) -> Detector:
    """Folds the batch norms of a trained graph into its convolutions.

    Args:
        model: What `scratch_graph` made.
        spec: Its architecture.

    Returns:
        The detector; its outputs equal those of the model in inference mode but for rounding.
    """
    tensors: dict[str, np.ndarray] = {}
    for layer in layers(spec):
        weights = model.get_layer(layer.name).get_weights()
        if layer.kind == "head":
            kernel, bias = weights
        else:
            gamma, beta, mean, variance = model.get_layer(f"{layer.name}_norm").get_weights()
            factor = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
            kernel = weights[0] * (factor[:, None] if layer.kind == "depthwise" else factor)
            bias = beta - mean * factor
        tensors[f"{layer.name}/weights"] = kernel.astype(np.float32)
        tensors[f"{layer.name}/bias"] = bias.astype(np.float32)
    return Detector(spec, tensors)


def _convolution(layer: Layer) -> Any:
    settings = {"strides": layer.stride, "padding": "same", "name": layer.name, "use_bias": layer.kind == "head"}
    if layer.kind == "depthwise":
        return tf_keras.layers.DepthwiseConv2D(layer.kernel, depthwise_initializer="he_normal", **settings)
    if layer.kind == "conv":
        return tf_keras.layers.Conv2D(layer.out_channels, layer.kernel, kernel_initializer="he_normal", **settings)
    # Without this bias the many background anchors would drown the others in the first steps (Lin et al., section 4.1).
    first_bias = -math.log(1 / _FIRST_SCORE - 1) if role_of(layer) == "scores" else 0.0
    return tf_keras.layers.Conv2D(
        layer.out_channels,
        layer.kernel,
        kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=tf_keras.initializers.Constant(first_bias),
        **settings,
    )
