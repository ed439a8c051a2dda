"""What every learner in Keras 2 does. Import this module inside functions only: it imports TensorFlow."""

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.training.learner import Batch, Losses
from tasks.training.loss_tensorflow import detection_loss, distillation_loss
from tasks.training.recipe import Recipe
from tasks.training.targets import background_column

_MOMENTUM = 0.9
_VALUES = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
"""Input of the detector by the value of a pixel, in [-1, 1]."""

_NOT_DECAYED = ["bias", "gamma", "beta"]
"""What the names of variables hold that weight decay leaves alone."""


class GraphLearner:
    """A Keras graph that learns: all of `tasks.training.learner.Learner` but for `detector` and `ranges`."""

    def __init__(self, model: Any, spec: SSDMobileNetV1Spec, recipe: Recipe, teacher: Any | None = None) -> None:
        """Prepares the updates. Makes TensorFlow's operations deterministic, for the whole process.

        Args:
            model: A functional `tf_keras.Model`, (B, S, S, 3) float32 RGB in [-1, 1] to codes (B, A, 4) and logits
                (B, A, classes). It is called with `training` true where batch norms and ranges may move.
            spec: Its architecture.
            recipe: Optimizer and loss.
            teacher: A model of the same inputs and outputs to learn from, if the recipe distils.
        """
        tf.config.experimental.enable_op_determinism()
        self.device = _device()
        self._model = model
        self._teacher = teacher
        self._recipe = recipe
        self._background = background_column(spec)
        self._optimizer = optimizer_of(recipe)
        self._optimizer.build(model.trainable_variables)
        self._variables = _variables(model, self._optimizer)
        images = tf.TensorSpec((None, spec.image_size, spec.image_size, 3), tf.uint8)
        targets = (tf.TensorSpec((None, None, 4), tf.float32), tf.TensorSpec((None, None), tf.int32))
        self._updates = {
            is_observing: _compiled(partial(self._update, is_observing), images, *targets)
            for is_observing in (True, False)
        }
        self._losses = _compiled(self._losses_of, images, *targets)
        self._outputs = _compiled(self._answers, images)

    def step(self, batch: Batch, learning_rate: float, is_observing: bool) -> Losses:
        """See `Learner.step`."""
        self._optimizer.learning_rate.assign(learning_rate)
        return _losses(self._updates[is_observing](batch.pixels, batch.codes, batch.columns))

    def evaluate(self, batch: Batch) -> Losses:
        """See `Learner.evaluate`."""
        return _losses(self._losses(batch.pixels, batch.codes, batch.columns))

    def outputs(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the graph, quantized as in training, without changing anything.

        Args:
            pixels: (B, S, S, 3) uint8 RGB.

        Returns:
            Codes (B, A, 4) and logits (B, A, classes) float32, the scores before the sigmoid.
        """
        codes, logits = self._outputs(pixels)
        return codes.numpy(), logits.numpy()

    def state(self) -> dict[str, np.ndarray]:
        """See `Learner.state`."""
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """See `Learner.restore`.

        Raises:
            ValueError: If the state is of a learner that was made otherwise.
        """
        if state.keys() != self._variables.keys():
            different = sorted(state.keys() ^ self._variables.keys())
            raise ValueError(f"the state is of another learner: they differ in {', '.join(different[:3])}")
        for name, variable in self._variables.items():
            variable.assign(state[name])

    def _update(self, is_observing: bool, pixels: Any, codes: Any, columns: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = self._losses_of(pixels, codes, columns, is_observing)
        gradients = tape.gradient(losses[-1], self._model.trainable_variables)
        self._optimizer.apply_gradients(zip(gradients, self._model.trainable_variables, strict=True))
        return losses

    def _losses_of(self, pixels: Any, target_codes: Any, target_columns: Any, is_observing: bool = False) -> Any:
        """Returns the fields of `Losses` in their order."""
        images = _scaled(pixels)
        codes, logits = self._model(images, training=is_observing)
        settings, share = self._recipe.loss, self._recipe.distillation_weight
        box, score = detection_loss(codes, logits, target_codes, target_columns, settings, self._background)
        wanted = settings.box_weight * box + settings.score_weight * score
        if self._teacher is None:
            return box, score, tf.zeros(()), wanted
        teacher_codes, teacher_logits = self._teacher(images, training=False)
        distillation = distillation_loss(codes, logits, teacher_codes, teacher_logits, self._background)
        # Without labels theirs is no loss at all, and must not even be multiplied by 0.
        total = distillation if share == 1 else (1 - share) * wanted + share * distillation
        return box, score, distillation, total

    def _answers(self, pixels: Any) -> Any:
        return self._model(_scaled(pixels), training=False)


def optimizer_of(recipe: Recipe) -> Any:
    """Makes the optimizer of a recipe. Its learning rate is set before each update.

    Args:
        recipe: Which one, its weight decay, and the norm that gradients are scaled down to.

    Returns:
        A `tf_keras.optimizers.Optimizer`; weight decay leaves biases and batch norms alone.
    """
    settings = {
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "global_clipnorm": recipe.largest_gradient,
        # XLA is used on GPUs only, where it would make the updates depend on the device's compiler.
        "jit_compile": False,
    }
    if recipe.optimizer == "adamw":
        optimizer = tf_keras.optimizers.AdamW(**settings)
    else:
        optimizer = tf_keras.optimizers.SGD(momentum=_MOMENTUM, nesterov=True, **settings)
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer


def _scaled(pixels: Any) -> Any:
    # In a graph TensorFlow multiplies by the reciprocal of what it should divide by. Values that are halfway between
    # two levels, as these are, would be rounded otherwise than in artifacts.
    return tf.gather(_VALUES, tf.cast(pixels, tf.int32))


def _losses(values: Any) -> Losses:
    return Losses(*(float(value) for value in values))


def _device() -> str:
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return "cpu"
    details: dict[str, Any] = tf.config.experimental.get_device_details(devices[0])
    return str(details.get("device_name", "GPU"))


def _variables(model: Any, optimizer: Any) -> dict[str, Any]:
    """Returns all variables by names that do not depend on what else was built in the process."""
    found = {f"{layer.name}/{_last_word(weight)}": weight for layer in model.layers for weight in layer.weights}
    return found | {f"optimizer/{index:04d}": variable for index, variable in enumerate(optimizer.variables)}


def _last_word(variable: Any) -> str:
    return str(variable.name).rsplit("/", 1)[-1].removesuffix(":0")


def _compiled(function: Any, *signature: Any) -> Any:
    """Makes a TensorFlow function of one that holds no control flow of tensors, which would take longer to make."""
    # TensorFlow counts how often it traces a method, and warns of the learners after the first few; not of a partial.
    return tf.function(partial(function), input_signature=signature, autograph=False)
