"""The Keras build of a detector."""

from typing import Any

from tasks.detector.ssd_mobilenet_v1 import Layer, SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector


def build_keras(detector: Detector) -> Any:
    """Builds a detector in Keras 2 (`tf_keras`), the version that the LiteRT converter and tfmot understand.

    Args:
        detector: Architecture and weights.

    Returns:
        A functional `tf_keras.Model`. Input `images`: (1, S, S, 3) float32 RGB in [-1, 1]. Output: a dict of
        `boxes`, (1, A, 4) float32 [ty, tx, th, tw] encoded against the anchors, and `scores`, (1, A, classes)
        float32 after the sigmoid. Its convolutions have the canonical names, and so have their operations.
    """
    import tf_keras

    model = _graph(detector.spec)
    for layer in layers(detector.spec):
        built: tf_keras.layers.Layer = model.get_layer(layer.name)
        built.set_weights([detector.tensors[f"{layer.name}/weights"], detector.tensors[f"{layer.name}/bias"]])
    return model


def _graph(spec: SSDMobileNetV1Spec) -> Any:
    import tf_keras

    image = tf_keras.Input((spec.image_size, spec.image_size, 3), batch_size=1, dtype="float32", name="images")
    outputs: dict[str, Any] = {"image": image}
    heads: dict[str, list[Any]] = {"boxes": [], "scores": []}
    widths = {"boxes": 4, "scores": len(spec.class_ids)}
    for layer in layers(spec):
        outputs[layer.name] = _convolution(layer)(outputs[layer.source])
        if layer.kind == "head":
            role = layer.name.rsplit("_", 1)[1]
            flatten = tf_keras.layers.Reshape((-1, widths[role]), name=f"{layer.name}_flat")
            heads[role].append(flatten(outputs[layer.name]))
    boxes = tf_keras.layers.Concatenate(axis=1, name="boxes")(heads["boxes"])
    logits = tf_keras.layers.Concatenate(axis=1, name="logits")(heads["scores"])
    scores = tf_keras.layers.Activation("sigmoid", name="scores")(logits)
    return tf_keras.Model(image, {"boxes": boxes, "scores": scores}, name="ssd_mobilenet_v1")


def _convolution(layer: Layer) -> Any:
    import tensorflow as tf
    import tf_keras

    settings: dict[str, Any] = {
        "kernel_size": layer.kernel,
        "strides": layer.stride,
        "padding": "same",
        "activation": None if layer.kind == "head" else tf.nn.relu6,
        "name": layer.name,
    }
    if layer.kind == "depthwise":
        return tf_keras.layers.DepthwiseConv2D(**settings)
    return tf_keras.layers.Conv2D(layer.out_channels, **settings)
