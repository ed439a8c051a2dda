"""Keras: runs a detector as a `tf.function`, straight from its canonical weights, in the precision of its policy."""

import contextlib
import gc
from typing import Any

import numpy as np

from tasks.detector.keras_model import Policy, build_keras, policy_of
from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, InferenceFailed, ModelMistake
from tasks.runtimes.base import Runtime, checked, input_table, register, run_each
from tasks.types import RuntimeSettings


class KerasSession:
    """A traced build of a detector."""

    def __init__(self, data: bytes, settings: RuntimeSettings) -> None:
        """Builds and traces the model.

        Args:
            data: Content of a detector's safetensors file, which may name a policy.
            settings: Number of threads.

        Raises:
            ArtifactUnreadable: If the content is not a detector.
        """
        detector, policy = opened(data)
        _set_threads(settings.threads)
        self._function = traced(detector, policy)
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
        # Traced functions refer to themselves in circles, which would hold the weights until some later collection.
        gc.collect()


def opened(data: bytes) -> tuple[Detector, Policy]:
    """Reads an artifact of the format `safetensors`.

    Args:
        data: Content of the file.

    Returns:
        The detector, and what Keras is to compute it in.

    Raises:
        ArtifactUnreadable: If the content is not a detector, or its policy is none that Keras has.
    """
    try:
        return Detector.from_bytes(data, "the artifact"), policy_of(data, "the artifact")
    except ModelMistake as error:
        raise ArtifactUnreadable(str(error)) from error


def traced(detector: Detector, policy: Policy) -> Any:
    """Makes what a session runs.

    Args:
        detector: Architecture and weights.
        policy: What its convolutions compute in.

    Returns:
        A `tf.function` of one argument, (1, S, S, 3) float32 in [-1, 1], that returns the dict of `build_keras`.
    """
    import tensorflow as tf

    model = build_keras(detector, policy)
    size = detector.spec.image_size
    return tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32)],
    )


def imported() -> Any:
    """Imports TensorFlow and Keras.

    Returns:
        The module `tf_keras`.
    """
    import tensorflow  # noqa: F401
    import tf_keras

    return tf_keras


def _set_threads(threads: int) -> None:
    import tensorflow as tf

    # TensorFlow fixes its threads at first use. Outputs do not depend on them, and latency is measured in a fresh
    # process, where they can still be set. Between operators there is one: the heads would else run side by side.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


register(
    Runtime(
        "keras",
        ("safetensors",),
        "tensorflow",
        KerasSession,
        ("tensorflow", "tf-keras"),
        imported=imported,
    )
)
