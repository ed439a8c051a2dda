"""Fake quantization by tensorflow-model-optimization, as the artifacts do it in integers.

The library's own scheme leaves depthwise kernels per tensor, has no 4-bit weights, and cannot hold ranges of
activations still while weights go on. So quantizers, configs and scheme are our own, of the library's classes.
Import this module inside functions only: it imports TensorFlow.
"""

from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.quantization import keras as tfmot

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.training.keras_graph import IMAGE, CappedReLU, activation_name, detector_graph
from tasks.training.learner import Simulation

_DECAY = 0.99
"""Share of a range that a step leaves."""

_LEVELS = 256
"""Of an activation."""

_RANGE = "range"


class WeightQuantizer(tfmot.quantizers.Quantizer):
    """Rounds weights to symmetric integers over their greatest magnitude, now."""

    def __init__(self, bits: int, axis: int | None) -> None:
        """Takes the grid.

        Args:
            bits: Width of the integers, whose least one is not used.
            axis: The axis of channels that have a scale each; None for one scale.
        """
        self.bits = bits
        self.axis = axis

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Makes no variables."""
        return {}

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **settings: Any) -> Any:
        """Rounds weights; the gradient passes straight through, since nothing lies outside the range."""
        return tf.grad_pass_through(self._rounded)(inputs)

    def _rounded(self, weights: Any) -> Any:
        others = None if self.axis is None else [axis for axis in range(4) if axis != self.axis]
        greatest = tf.reduce_max(tf.abs(weights), axis=others, keepdims=True)
        scale = greatest / (2 ** (self.bits - 1) - 1)
        return tf.round(tf.math.divide_no_nan(weights, scale)) * scale

    def get_config(self) -> dict[str, Any]:
        """Returns what the quantizer can be made of anew."""
        return {"bits": self.bits, "axis": self.axis}


class ActivationQuantizer(tfmot.quantizers.Quantizer):
    """Rounds activations over a range that follows them while it may."""

    def __init__(self, is_symmetric: bool) -> None:
        """Takes the grid.

        Args:
            is_symmetric: Whether zero is in the middle of the integers.
        """
        self.is_symmetric = is_symmetric

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Makes the range (low, high), as it was seen: it need not hold zero."""
        return {_RANGE: layer.add_weight(_RANGE, shape=(2,), initializer="zeros", trainable=False)}

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any], **settings: Any) -> Any:
        """Rounds activations, and moves the range before that if `training`."""
        found = weights[_RANGE]
        if training:
            seen = tf.stack([tf.reduce_min(inputs), tf.reduce_max(inputs)])
            found = found.assign_add((1 - _DECAY) * (tf.stop_gradient(seen) - found))
        return self._rounded(inputs, *self._ends(tf.convert_to_tensor(found)))

    def _rounded(self, values: Any, low: Any, high: Any) -> Any:
        return _rounded_within(values, low, high)

    def _ends(self, found: Any) -> tuple[Any, Any]:
        """Returns the ends that TensorFlow's operation takes; it moves them so that zero is an integer."""
        if self.is_symmetric:
            # The scale is that of 255 steps over [-m, m]; zero is the integer 128, so that all is half a step lower.
            step = tf.reduce_max(tf.abs(found)) * 2 / (_LEVELS - 1)
            return -step * (_LEVELS // 2), step * (_LEVELS // 2 - 1)
        return tf.minimum(found[0], 0.0), tf.maximum(found[1], 0.0)

    def get_config(self) -> dict[str, Any]:
        """Returns what the quantizer can be made of anew."""
        return {"is_symmetric": self.is_symmetric}


class ImageQuantizer(ActivationQuantizer):
    """Rounds the image, through which no gradient passes.

    Over [-1, 1] each of its values is halfway between two levels. TensorFlow's operation would round all of them up;
    artifacts, and torch, take the even one.
    """

    def _rounded(self, values: Any, low: Any, high: Any) -> Any:
        step = (high - low) / (_LEVELS - 1)
        zero = tf.round(-low / step)
        return tf.clip_by_value(tf.round(values / step), -zero, _LEVELS - 1 - zero) * step


@tf.custom_gradient
def _rounded_within(values: Any, low: Any, high: Any) -> Any:
    """Rounds values to 256 levels over a range; the gradient passes straight through inside of it.

    TensorFlow's own gradient of the operation has no deterministic kernel on GPUs, and computes those of the ends, too.
    That of ReLU6 does what is left, in one pass: it keeps the gradient where its features are between 0 and 6.
    """

    def gradient(upstream: Any) -> tuple[Any, None, None]:
        features = (values - low) * tf.math.divide_no_nan(6.0, high - low)
        return tf.raw_ops.Relu6Grad(gradients=upstream, features=features), None, None

    return tf.quantization.fake_quant_with_min_max_vars(values, low, high), gradient


class QuantizeConfig(tfmot.QuantizeConfig):
    """What is quantized of a Keras layer: its kernel, or its output."""

    def __init__(self, kernel: str | None, quantizer: Any) -> None:
        """Takes the one quantizer.

        Args:
            kernel: Attribute of the layer that is quantized; None for its output.
            quantizer: How.
        """
        self.kernel = kernel
        self.quantizer = quantizer

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """See the base class."""
        return [(getattr(layer, self.kernel), self.quantizer)] if self.kernel else []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """See the base class."""
        if self.kernel:
            setattr(layer, self.kernel, quantize_weights[0])

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        """See the base class: activations are layers of their own."""
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """See the base class."""
        # AutoGraph cannot read a function without statements, and would say so.
        del layer, quantize_activations

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """See the base class."""
        return [] if self.kernel else [self.quantizer]

    def get_config(self) -> dict[str, Any]:
        """Returns what the config can be made of anew."""
        return {"kernel": self.kernel, "quantizer": tf_keras.utils.legacy.serialize_keras_object(self.quantizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "QuantizeConfig":
        """Makes a config of what `get_config` returned."""
        quantizer = tf_keras.utils.legacy.deserialize_keras_object(config["quantizer"])
        return cls(config["kernel"], quantizer)


class _Unchanged(tfmot.QuantizeLayoutTransform):
    """No transform of the graph: it is built as it is to be."""

    def apply(self, model: Any, layer_quantize_map: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return model, layer_quantize_map


class _Nothing(tfmot.QuantizeRegistry):
    """No layer is quantized unless it is annotated with a config."""

    def supports(self, layer: Any) -> bool:
        return False

    def get_quantize_config(self, layer: Any) -> Any:
        raise QuantizationFailed(f"{layer.name} is to be quantized, but nothing says how")


class _Annotated(tfmot.QuantizeScheme):
    """What is annotated is quantized, as its config says, and nothing else is."""

    def get_layout_transformer(self) -> Any:
        return _Unchanged()

    def get_quantize_registry(self) -> Any:
        return _Nothing()


def simulated_graph(detector: Detector, simulation: Simulation) -> Any:
    """Builds the training graph of a detector with fake quantization; see `detector_graph`.

    Args:
        detector: The architecture, and caps if its ReLUs have some. Its weights are not given to the graph.
        simulation: What is quantized.

    Returns:
        The graph. Ranges are those of `range_variables`, and 0 at first; they move where it is called with `training`.

    Raises:
        QuantizationFailed: If tensorflow-model-optimization leaves out what it was told to quantize.
    """
    configs = _configs(detector, simulation)

    def annotate(layer: Any, name: str) -> Any:
        return tfmot.quantize_annotate_layer(layer, configs[name]) if name in configs else layer

    if not configs:
        return detector_graph(detector, annotate)
    known = (WeightQuantizer, ActivationQuantizer, ImageQuantizer, QuantizeConfig, CappedReLU)
    with tfmot.quantize_scope({item.__name__: item for item in known}):
        annotated = detector_graph(detector, annotate)
        model = tfmot.quantize_apply(annotated, _Annotated(), quantized_layer_name_prefix="")
    _check(model, configs)
    return model


def range_variables(model: Any) -> dict[str, Any]:
    """Finds the ranges of activations in a graph.

    Args:
        model: What `simulated_graph` made.

    Returns:
        (2,) float32 variables [low, high] by the Keras layer whose output is quantized: `IMAGE` or as
        `activation_name` says.
    """
    return {
        layer.name: next(item for item in layer.non_trainable_weights if item.name.endswith(f"/{_RANGE}:0"))
        for layer in model.layers
        if isinstance(layer, tfmot.QuantizeWrapperV2) and layer.quantize_config.kernel is None
    }


def quantized_activations(detector: Detector, simulation: Simulation) -> set[str]:
    """Returns whose outputs are quantized: those of each activation that any quantized layer reads, and those of joins
    of which any head is quantized.

    Args:
        detector: The architecture.
        simulation: What is kept in float.

    Returns:
        `IMAGE`, and names of `activation_name`.
    """
    table = layers(detector.spec)
    outputs = {IMAGE: IMAGE} | {layer.name: activation_name(layer) for layer in table}
    quantized = [layer for layer in table if layer.name not in simulation.kept_float]
    read = {outputs[layer.source] for layer in quantized}
    return read | {activation_name(layer) for layer in quantized if layer.kind == "head"}


def _configs(detector: Detector, simulation: Simulation) -> dict[str, QuantizeConfig]:
    """Returns the config of each Keras layer that is to be quantized, by its name."""
    kernels = {
        layer.name: _kernel_config(layer, simulation)
        for layer in layers(detector.spec)
        if layer.name not in simulation.kept_float
    }
    quantizers = {
        name: (ImageQuantizer if name == IMAGE else ActivationQuantizer)(simulation.is_symmetric)
        for name in sorted(quantized_activations(detector, simulation))
    }
    return kernels | {name: QuantizeConfig(None, quantizer) for name, quantizer in quantizers.items()}


def _kernel_config(layer: Layer, simulation: Simulation) -> QuantizeConfig:
    if layer.kind == "depthwise":
        quantizer = WeightQuantizer(simulation.depthwise_bits, 2 if simulation.is_per_channel else None)
        return QuantizeConfig("depthwise_kernel", quantizer)
    return QuantizeConfig("kernel", WeightQuantizer(simulation.weight_bits, 3 if simulation.is_per_channel else None))


def _check(model: Any, configs: dict[str, QuantizeConfig]) -> None:
    """Compares what the library wrapped with what it was told to: it leaves layers in float without a word."""
    wanted = {name: config.get_config() for name, config in configs.items()}
    wrappers = [layer for layer in model.layers if isinstance(layer, tfmot.QuantizeWrapperV2)]
    found = {layer.name: layer.quantize_config.get_config() for layer in wrappers}
    for name in wanted.keys() | found.keys():
        if wanted.get(name) != found.get(name):
            raise QuantizationFailed(
                f"{name} should be quantized by {wanted.get(name)}, but tensorflow-model-optimization has it quantized "
                f"by {found.get(name)}"
            )
