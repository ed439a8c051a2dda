"""Keras: runs a detector as a `tf.function`, straight from its canonical weights; the proof of equal numbers."""

import contextlib
from typing import Any

import numpy as np

from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, InferenceFailed, ModelMistake
from tasks.runtimes.base import Runtime, checked, input_table, register, run_each
from tasks.types import RuntimeSettings


class KerasSession:
    """A traced float32 build of a detector."""

    def __init__(self, data: bytes, settings: RuntimeSettings) -> None:
        """Builds and traces the model.

        Args:
            data: Content of a detector's safetensors file.
            settings: Number of threads.

        Raises:
            ArtifactUnreadable: If the content is not a detector.
        """
        try:
            detector = Detector.from_bytes(data, "the artifact")
        except ModelMistake as error:
            raise ArtifactUnreadable(str(error)) from error
        self._function = _traced(detector, settings.threads)
        self._table = input_table(np.dtype(np.float32))
        self._raw: Any = None

    def prepare(self, pixels: np.ndarray) -> Any:
        """See `Session.prepare`."""
        import tensorflow as tf

        return tf.constant(self._table[pixels])

    def infer(self, prepared: Any) -> None:
        """See `Session.infer`."""
        import tensorflow as tf

        try:
            self._raw = self._function(prepared)
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise InferenceFailed(f"TensorFlow failed: {error}") from error

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.outputs`."""
        return checked(self._raw["boxes"].numpy(), self._raw["scores"].numpy())

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.run`."""
        return run_each(self, pixels)

    def close(self) -> None:
        """See `Session.close`."""
        self._function = self._raw = None


def _traced(detector: Detector, threads: int) -> Any:
    import tensorflow as tf

    from tasks.detector.keras_model import build_keras

    # TensorFlow fixes its threads at first use. Outputs do not depend on them, and latency is measured in a fresh
    # process, where they can still be set.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = build_keras(detector)
    size = detector.spec.image_size
    return tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32)],
    )


register(Runtime("keras", ("safetensors",), "tensorflow", KerasSession, ("tensorflow", "tf-keras")))
