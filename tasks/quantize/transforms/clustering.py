"""Clustered weights: non-uniform quantization to a codebook a layer. Simulated: no kernel here looks codes up."""

from dataclasses import replace

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.transforms.base import Transform, register
from tasks.quantize.transforms.codebook import codebook, nearest

_SIZES = "2|4|8|16|32|64|128|256"

DEPTHWISE_SIZE = 256
"""Least codebook of a depthwise layer. These layers are hurt most and hold 1 % of the weights: with 16 values for them,
too, the TensorFlow zoo's detector falls from an AP of .17 to .05. tensorflow-model-optimization leaves them alone."""


def clustered(detector: Detector, name: str) -> Detector:
    """Replaces each layer's weights by the values of a codebook of its own, found by k-means.

    Source: Han et al. 2016, "Deep Compression", section 3 (weight sharing by k-means, one codebook a layer), without
    its retraining of the codebook. Biases stay as they are. The arithmetic stays float: what is saved is download
    size, since a stored value takes log2(N) bits or less once compressed.

    Args:
        detector: Architecture and weights.
        name: `clustered_N`: N is the size of the codebooks, a power of two from 2 to 256.

    Returns:
        The detector with at most N distinct weights in each layer, `DEPTHWISE_SIZE` in depthwise ones. A layer that has
        no more stays as it is.
    """
    return _clustered(detector, _weights(detector), _size(name))


def clustered_by_tfmot(detector: Detector, name: str) -> Detector:
    """Clusters the Keras build by the clustering API of tensorflow-model-optimization, without training.

    Its `cluster_weights` draws a codebook a layer by k-means++ (Arthur and Vassilvitskii 2007), which is where
    k-means starts from: it has no Lloyd iterations and leaves it to training to move the codes. So without training
    its error is above that of `clustered_N`. Depthwise convolutions it does not cluster at all ("big unrecoverable
    accuracy loss", `ClusteringRegistry`), nor layers with too few weights: these are clustered as `clustered_N` does
    it. It compares each weight with each code at once, which takes some 3 GB for 256 codes in a layer of 660 thousand
    weights.

    Args:
        detector: Architecture and weights.
        name: `clustered_tfmot_N`: N is the size of the codebooks, a power of two from 2 to 256.

    Returns:
        The detector with at most N distinct weights in each layer, `DEPTHWISE_SIZE` in depthwise ones.
    """
    import tensorflow_model_optimization as tfmot

    from tasks.detector.keras_model import build_keras

    # Caps do not matter to the weights, and Keras cannot clone the functions that they are applied by.
    plain = {key: tensor for key, tensor in detector.tensors.items() if not key.endswith("/cap")}
    size = _size(name)
    wrapped = tfmot.clustering.keras.cluster_weights(
        build_keras(Detector(detector.spec, plain)),
        number_of_clusters=size,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
    )
    model = tfmot.clustering.keras.strip_clustering(wrapped)
    found = {layer.name: model.get_layer(layer.name).get_weights()[0] for layer in layers(detector.spec)}
    return _clustered(detector, found, size)


def _clustered(detector: Detector, weights: dict[str, np.ndarray], size: int) -> Detector:
    sizes = {
        layer.name: max(size, DEPTHWISE_SIZE) if layer.kind == "depthwise" else size for layer in layers(detector.spec)
    }
    return _with_weights(
        detector, {name: nearest(values, codebook(values, sizes[name])) for name, values in weights.items()}
    )


def _weights(detector: Detector) -> dict[str, np.ndarray]:
    return {layer.name: detector.tensors[f"{layer.name}/weights"] for layer in layers(detector.spec)}


def _with_weights(detector: Detector, weights: dict[str, np.ndarray]) -> Detector:
    changed = {f"{name}/weights": value for name, value in weights.items()}
    return replace(detector, tensors=detector.tensors | changed)


def _size(name: str) -> int:
    return int(name.rsplit("_", 1)[1])


register(Transform(pattern=f"clustered_({_SIZES})", example="clustered_16", apply=clustered))
register(
    Transform(
        pattern=f"clustered_tfmot_({_SIZES})",
        example="clustered_tfmot_16",
        apply=clustered_by_tfmot,
        framework="tensorflow",
        packages=("tensorflow", "tf-keras", "tensorflow-model-optimization"),
    )
)
