"""The Keras build of a detector."""

from typing import Any, Literal, cast, get_args

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import RELU6_CAP, Detector, metadata_of, with_metadata
from tasks.errors import ModelMistake

Policy = Literal["float32", "mixed_float16", "mixed_bfloat16"]
"""What Keras computes in. Variables are float32 under each."""

_POLICY_KEY = "quantsweep.keras_policy"


def keras_file(detector: Detector, policy: Policy) -> bytes:
    """Makes the file that the Keras runtime opens: the detector's own, with the policy in its metadata.

    Args:
        detector: Architecture and weights.
        policy: What Keras is to compute in.

    Returns:
        Content of a safetensors file. For float32 it is the detector's file to the byte.
    """
    data = detector.to_bytes()
    return data if policy == "float32" else with_metadata(data, _POLICY_KEY, policy)


def policy_of(data: bytes, origin: str) -> Policy:
    """Reads the policy of a detector's file.

    Args:
        data: Content of a safetensors file.
        origin: What to call the file in an error.

    Returns:
        The policy; float32 if the file names none.

    Raises:
        ModelMistake: If it is not a safetensors file, or names another policy.
    """
    found = metadata_of(data, origin).get(_POLICY_KEY, "float32")
    if found not in get_args(Policy):
        raise ModelMistake(f"{origin} has the Keras policy {found!r}; choices: {', '.join(get_args(Policy))}")
    return cast(Policy, found)


def build_keras(detector: Detector, policy: Policy = "float32") -> Any:
    """Builds a detector in Keras 2 (`tf_keras`), the version that the LiteRT converter and tfmot understand.

    Args:
        detector: Architecture and weights.
        policy: What its convolutions compute in. Outputs and the sigmoid are float32 under each.

    Returns:
        A functional `tf_keras.Model`. Input `images`: (1, S, S, 3) float32 RGB in [-1, 1]. Output: a dict of
        `boxes`, (1, A, 4) float32 [ty, tx, th, tw] encoded against the anchors, and `scores`, (1, A, classes)
        float32 after the sigmoid. Its convolutions have the canonical names, and so have their operations.
    """
    import tf_keras

    model = _graph(detector, policy)
    for layer in layers(detector.spec):
        built: tf_keras.layers.Layer = model.get_layer(layer.name)
        built.set_weights([detector.tensors[f"{layer.name}/weights"], detector.tensors[f"{layer.name}/bias"]])
    return model


def _graph(detector: Detector, policy: Policy) -> Any:
    import tf_keras

    spec = detector.spec
    image = tf_keras.Input((spec.image_size, spec.image_size, 3), batch_size=1, dtype="float32", name="images")
    outputs: dict[str, Any] = {"image": image}
    heads: dict[str, list[Any]] = {"boxes": [], "scores": []}
    widths = {"boxes": 4, "scores": len(spec.class_ids)}
    for layer in layers(spec):
        convolution = _convolution(layer, detector.tensors.get(f"{layer.name}/cap"), policy)
        outputs[layer.name] = convolution(outputs[layer.source])
        if layer.kind == "head":
            role = layer.name.rsplit("_", 1)[1]
            flatten = tf_keras.layers.Reshape((-1, widths[role]), name=f"{layer.name}_flat", dtype=policy)
            heads[role].append(flatten(outputs[layer.name]))
    boxes = tf_keras.layers.Concatenate(axis=1, name="boxes", dtype="float32")(heads["boxes"])
    logits = tf_keras.layers.Concatenate(axis=1, name="logits", dtype="float32")(heads["scores"])
    scores = tf_keras.layers.Activation("sigmoid", name="scores", dtype="float32")(logits)
    return tf_keras.Model(image, {"boxes": boxes, "scores": scores}, name="ssd_mobilenet_v1")


def _convolution(layer: Layer, cap: np.ndarray | None, policy: Policy) -> Any:
    import tf_keras

    settings: dict[str, Any] = {
        "kernel_size": layer.kernel,
        "strides": layer.stride,
        "padding": "same",
        "activation": None if layer.kind == "head" else _activation(cap),
        "name": layer.name,
        "dtype": policy,
    }
    if layer.kind == "depthwise":
        return tf_keras.layers.DepthwiseConv2D(**settings)
    return tf_keras.layers.Conv2D(layer.out_channels, **settings)


def _activation(cap: np.ndarray | None) -> Any:
    import tensorflow as tf

    if cap is None:
        return tf.nn.relu6
    # Convolutions fuse ReLU6. Under it an integer tensor holds no values that the caps would cut off anyway.
    rectified = tf.nn.relu6 if cap.max() <= RELU6_CAP else tf.nn.relu

    def capped(values: Any) -> Any:
        return tf.minimum(rectified(values), tf.constant(cap, values.dtype))

    return capped
