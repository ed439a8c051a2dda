"""Recipes: what litert-quantizer is told to do with each operator of a float flatbuffer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.quantize.schemes import (
    DynamicInt4,
    DynamicInt8,
    EndType,
    Granularity,
    Qat,
    QatInt4,
    QatInt8,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightAlgorithm,
    WeightOnlyInt4,
    WeightOnlyInt8,
)

_EVERYTHING = ".*"
_LEAST_RANGE = 1e-9
"""The library's least range of a tensor, so that no scale is zero: `min_bound` in its uniform_quantize_tensor.py."""


@dataclass(frozen=True)
class Recipe:
    """How a float flatbuffer is quantized."""

    weight_bits: int
    """Width of the weights of convolutions and fully connected layers."""

    depthwise_bits: int
    """Width of the weights of depthwise convolutions."""

    activation_bits: int | None
    """Width of activations with fixed ranges, or None if they stay in float."""

    is_widened: bool
    """Whether the weights are widened to float before they are used."""

    granularity: Granularity
    """Whether each output channel of the weights has its own scale."""

    weight_algorithm: WeightAlgorithm
    """How weights are rounded, or over what range."""

    is_symmetric: bool
    """Whether the zero point of activations is 0."""

    input_type: EndType
    """Element type of the input tensor."""

    output_type: EndType
    """Element type of the output tensors."""

    @property
    def is_static(self) -> bool:
        """Whether activations are integers with fixed ranges."""
        return self.activation_bits is not None

    @property
    def is_dynamic(self) -> bool:
        """Whether activations are quantized within each kernel."""
        return not self.is_static and not self.is_widened

    def activation_scale(self, low: float, high: float) -> float:
        """Returns the step that the library quantizes an activation with.

        Args:
            low: Lower end of its range, which is widened to hold zero.
            high: Upper end of its range, likewise.

        Raises:
            ValueError: If the recipe leaves activations in float.
        """
        if self.activation_bits is None:
            raise ValueError("activations stay in float and have no scale")
        if self.is_symmetric:
            return max(abs(low), abs(high), _LEAST_RANGE) / (2 ** (self.activation_bits - 1) - 1)
        return max(max(high, 0.0) - min(low, 0.0), _LEAST_RANGE) / (2**self.activation_bits - 1)


@dataclass(frozen=True)
class _Widths:
    """What a scheme type says about widths."""

    weights: int
    depthwise: int
    activations: int | None = None
    is_widened: bool = False


# Depthwise weights, of which there are few, have 8 bits everywhere: the library's policy (its default_policy.py) has 4
# bits for full convolutions alone, and LiteRT has no dynamic kernel for them ("Type FLOAT32 with filter type INT4 not
# currently supported", tensorflow/lite/kernels/depthwise_conv.cc).
_WIDTHS: dict[type[Scheme], _Widths] = {
    WeightOnlyInt8: _Widths(8, 8, is_widened=True),
    WeightOnlyInt4: _Widths(4, 8, is_widened=True),
    DynamicInt8: _Widths(8, 8),
    DynamicInt4: _Widths(4, 8),
    StaticInt8: _Widths(8, 8, 8),
    StaticInt4: _Widths(4, 8, 8),
    StaticInt8x16: _Widths(8, 8, 16),
    QatInt8: _Widths(8, 8, 8),
    QatInt4: _Widths(4, 8, 8),
}


def recipe_of(scheme: Scheme) -> Recipe:
    """Finds the recipe of a scheme.

    Args:
        scheme: A scheme with integer weights.

    Returns:
        The recipe.
    """
    widths, axes = _WIDTHS[type(scheme)], scheme.axes()
    return Recipe(
        weight_bits=widths.weights,
        depthwise_bits=widths.depthwise,
        activation_bits=widths.activations,
        is_widened=widths.is_widened,
        granularity=axes["granularity"],
        # What is clipped for training is clipped before it: see `tasks.quantize.qat.clipped`.
        weight_algorithm="min_max" if isinstance(scheme, Qat) else axes["weight_algorithm"],
        # LiteRT's kernels of 16-bit activations take no zero points.
        is_symmetric=widths.activations == 16 or axes.get("symmetry") == "symmetric",
        input_type=axes.get("input_type", "float32"),
        output_type=axes.get("output_type", "float32"),
    )


def add_recipe(quantizer: Any, recipe: Recipe, float_scopes: Sequence[str]) -> None:
    """Tells a quantizer what to do.

    Args:
        quantizer: A `litert_quantizer.Quantizer`.
        recipe: What to do.
        float_scopes: Scopes of the operators that stay in float: the names of their outputs, each ended by `;`.
    """
    from litert_quantizer.qtyping import TFLOperationName as Operation
    from litert_quantizer.quantizer import AlgorithmName

    # Ranges by MSE and OCTAV are handed in as ranges of the weights: the library's own MSE takes them for Gaussian,
    # its OCTAV would clip the floor under them, and both divide by zero where all weights of a channel are zero.
    rounding = {"gptq": AlgorithmName.GPTQ, "oscar": AlgorithmName.OSCAR}
    algorithm = rounding.get(recipe.weight_algorithm, AlgorithmName.MIN_MAX_UNIFORM_QUANT)
    quantizer.update_quantization_recipe(
        _EVERYTHING, Operation.ALL_SUPPORTED, _operation(recipe, recipe.weight_bits), algorithm
    )
    # Without this entry, the library leaves them in float without a word.
    if recipe.weight_algorithm not in rounding and recipe.depthwise_bits != recipe.weight_bits:
        depthwise = _operation(recipe, recipe.depthwise_bits)
        quantizer.update_quantization_recipe(_EVERYTHING, Operation.DEPTHWISE_CONV_2D, depthwise, algorithm)
    for end, element_type in ((Operation.INPUT, recipe.input_type), (Operation.OUTPUT, recipe.output_type)):
        if element_type == "float32":
            quantizer.update_quantization_recipe(_EVERYTHING, end, algorithm_key=AlgorithmName.NO_QUANTIZE)
        else:
            quantizer.update_quantization_recipe(_EVERYTHING, end, _end(recipe, element_type))
    if float_scopes:
        scopes = f"^(?:{'|'.join(re.escape(scope) for scope in float_scopes)})$"
        quantizer.update_quantization_recipe(scopes, Operation.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _operation(recipe: Recipe, weight_bits: int) -> Any:
    from litert_quantizer.qtyping import ComputePrecision, OpQuantizationConfig, TensorQuantizationConfig

    activations = None
    if recipe.activation_bits is not None:
        activations = TensorQuantizationConfig(recipe.activation_bits, symmetric=recipe.is_symmetric)
    return OpQuantizationConfig(
        activation_tensor_config=activations,
        weight_tensor_config=TensorQuantizationConfig(
            weight_bits, symmetric=True, granularity=_granularity(recipe.granularity)
        ),
        compute_precision=ComputePrecision.FLOAT if recipe.is_widened else ComputePrecision.INTEGER,
        explicit_dequantize=recipe.is_widened,
    )


def _end(recipe: Recipe, element_type: EndType) -> Any:
    from litert_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        TensorDataType,
        TensorQuantizationConfig,
    )

    is_unsigned = element_type == "uint8"
    tensor = TensorQuantizationConfig(
        8,
        symmetric=recipe.is_symmetric and not is_unsigned,
        dtype=TensorDataType.UINT if is_unsigned else TensorDataType.INT,
    )
    # The library wants weights here, too, which an end does not have.
    return OpQuantizationConfig(tensor, TensorQuantizationConfig(8), ComputePrecision.INTEGER)


def _granularity(granularity: Granularity) -> Any:
    from litert_quantizer.qtyping import QuantGranularity

    return {"per_channel": QuantGranularity.CHANNELWISE, "per_tensor": QuantGranularity.TENSORWISE}[granularity]
