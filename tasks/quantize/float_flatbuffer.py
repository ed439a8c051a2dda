"""Float flatbuffers: a detector as TFLiteConverter reads it, and the .tflite that every LiteRT artifact starts from."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tasks.detector.weights import Detector

INPUT = "images"
"""Name of the input in the signature `serving_default`: (1, S, S, 3) float32 RGB in [-1, 1]."""


@dataclass(frozen=True, eq=False)
class _Content:
    """A detector that equals any other with the same content, so that it can be the key of a cache."""

    detector: Detector

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self.detector.sha256 == other.detector.sha256

    def __hash__(self) -> int:
        return hash(self.detector.sha256)


def converter(detector: Detector) -> Any:
    """Makes a TFLiteConverter of a detector. Tracing and freezing happen once in a process.

    Args:
        detector: Architecture and weights.

    Returns:
        A `tf.lite.TFLiteConverter` with the default settings, that is float32. What it makes has the signature
        `serving_default` with the input `images` and the outputs `boxes` and `scores`.
    """
    import tensorflow as tf

    module = _frozen(_Content(detector))
    made = tf.lite.TFLiteConverter.from_concrete_functions([module.serve.get_concrete_function()], module)
    # The metadata holds a hash of the graph's textual form, which would make equal artifacts differ.
    made.exclude_conversion_metadata = True
    return made


def float_flatbuffer(detector: Detector) -> bytes:
    """Returns the float32 .tflite of a detector, converted once in a process.

    Args:
        detector: Architecture and weights.

    Returns:
        Content of the file.
    """
    return _converted(_Content(detector))


@lru_cache(maxsize=4)
def _converted(content: _Content) -> bytes:
    return bytes(converter(content.detector).convert())


@lru_cache(maxsize=4)
def _frozen(content: _Content) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from tasks.detector.keras_model import build_keras

    model = build_keras(content.detector)
    size = content.detector.spec.image_size
    specification = [tf.TensorSpec((1, size, size, 3), tf.float32, name=INPUT)]

    def infer(images: Any) -> tuple[Any, Any]:
        outputs = model(images, training=False)
        return outputs["boxes"], outputs["scores"]

    # Nine tenths of the time of `TFLiteConverter.from_keras_model` go into saving and loading Keras layers and their
    # variables. A module with one frozen function has neither, and keeps the names of the signature.
    frozen = convert_variables_to_constants_v2(
        tf.function(infer, input_signature=specification).get_concrete_function()
    )

    def serve(images: Any) -> dict[str, Any]:
        boxes, scores = frozen(images)
        return {"boxes": boxes, "scores": scores}

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specification)
    return module
