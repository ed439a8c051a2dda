"""A `.tflite` file as plain values: its operations and tensors, read without running it.

Source: TensorFlow Lite schema v3 (`tensorflow/compiler/mlir/lite/schema/schema.fbs`).
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import ModelMistake

IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of every `.tflite` file."""

POSTPROCESS = "TFLite_Detection_PostProcess"
"""Custom code of the operation that decodes boxes and suppresses overlaps."""

BOX_SCALES = ("y_scale", "x_scale", "h_scale", "w_scale")
"""Its options that belong to the box code."""

_MOST_ITEMS = 100_000
"""Longest list of tensors or operations that is believed: a damaged length must not cost minutes."""

_DTYPES: dict[str, Any] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT16": np.int16,
    "UINT8": np.uint8,
    "INT8": np.int8,
}

_DAMAGE = (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
"""What the flatbuffers library raises when offsets, lengths or fields of a damaged file lead nowhere."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor."""

    name: str
    """Its name in the file."""

    shape: tuple[int, ...]
    """Its shape."""

    dtype: str
    """Its element type, as in the schema: `FLOAT32`, `UINT8`, ..."""

    scales: np.ndarray
    """(1,) or (channels,) float32 quantization scales, or (0,) if not quantized."""

    zero_points: np.ndarray
    """As many int64 zero points."""

    channel_axis: int
    """Axis of the channels that the scales belong to."""

    content: np.ndarray
    """Its constant value as uint8 bytes, or (0,) if it is computed."""

    @property
    def is_constant(self) -> bool:
        """Whether the file holds its value."""
        return self.content.size > 0

    @property
    def quantized_range(self) -> tuple[float, float] | None:
        """Least and greatest real value that an 8-bit tensor can hold, or None if it is not quantized per tensor."""
        limits = {"UINT8": (0, 255), "INT8": (-128, 127)}.get(self.dtype)
        if limits is None or self.scales.size != 1:
            return None
        low, high = ((limit - int(self.zero_points[0])) * float(self.scales[0]) for limit in limits)
        return low, high

    def values(self) -> np.ndarray:
        """Returns the constant value as real numbers: scale * (q - zero point).

        Returns:
            float32 of the tensor's shape.

        Raises:
            ModelMistake: If it has no constant value, or one of a type or size that does not fit.
        """
        dtype = _DTYPES.get(self.dtype)
        if dtype is None:
            raise ModelMistake(f"the tensor {self.name} is {self.dtype}; choices: {', '.join(_DTYPES)}")
        expected = math.prod(self.shape) * np.dtype(dtype).itemsize
        if not self.is_constant or self.content.size != expected:
            raise ModelMistake(f"the tensor {self.name} holds {self.content.size} bytes; its shape wants {expected}")
        raw = np.frombuffer(self.content.tobytes(), dtype).reshape(self.shape)
        if not self.scales.size:
            return raw.astype(np.float32)
        # Damaged scales overflow; the detector refuses values that are not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            return (self._aligned(self.scales) * (raw - self._aligned(self.zero_points))).astype(np.float32)

    def _aligned(self, parameters: np.ndarray) -> np.ndarray:
        if parameters.size == 1:
            return parameters.reshape(()).astype(np.float64)
        if self.channel_axis not in range(len(self.shape)) or parameters.size != self.shape[self.channel_axis]:
            raise ModelMistake(f"the tensor {self.name} of shape {self.shape} has {parameters.size} scales")
        along = [1] * len(self.shape)
        along[self.channel_axis] = parameters.size
        return parameters.reshape(along).astype(np.float64)


@dataclass(frozen=True)
class Operation:
    """One operation."""

    name: str
    """Its name in the schema, `CONV_2D`, or its custom code, `TFLite_Detection_PostProcess`."""

    inputs: tuple[int, ...]
    """Numbers of the tensors that it reads; -1 for one left out."""

    outputs: tuple[int, ...]
    """Numbers of the tensors that it writes."""

    options: dict[str, Any]
    """For convolutions `stride`, `padding`, `dilation`, `activation` (as in the schema) and `channel_multiplier`;
    for `TFLite_Detection_PostProcess` the `BOX_SCALES`; else nothing."""


@dataclass(frozen=True, eq=False)
class Graph:
    """The graph of a file."""

    inputs: tuple[int, ...]
    """Numbers of the input tensors."""

    outputs: tuple[int, ...]
    """Numbers of the output tensors."""

    tensors: tuple[Tensor, ...]
    """All tensors."""

    operations: tuple[Operation, ...]
    """All operations, in order of execution: each reads what earlier ones have written."""


def read_graph(data: bytes, origin: str) -> Graph:
    """Reads a `.tflite` file.

    Args:
        data: Content of the file.
        origin: What to call the file in an error.

    Returns:
        Its only graph.

    Raises:
        ModelMistake: If the content is not a whole `.tflite` file with one graph.
    """
    if data[4:8] != IDENTIFIER:
        raise ModelMistake(f"{origin} is not a .tflite file: it lacks the identifier TFL3")
    try:
        graph = _graph(data)
    except _DAMAGE as error:
        raise ModelMistake(f"{origin} is a truncated or damaged .tflite file ({error})") from error
    known = range(-1, len(graph.tensors))
    named = [number for operation in graph.operations for number in (*operation.inputs, *operation.outputs)]
    if not graph.inputs or any(number not in known for number in (*named, *graph.inputs, *graph.outputs)):
        raise ModelMistake(f"{origin} is a damaged .tflite file: its operations name tensors that it does not have")
    return graph


def _graph(data: bytes) -> Graph:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data, 0)
    if model.SubgraphsLength() != 1:
        raise ValueError(f"it has {model.SubgraphsLength()} graphs")
    graph = model.Subgraphs(0)
    _believe(graph.TensorsLength(), graph.OperatorsLength(), model.BuffersLength(), model.OperatorCodesLength())
    names = [_operation_name(model.OperatorCodes(index)) for index in range(model.OperatorCodesLength())]
    tensors = tuple(_tensor(model, graph.Tensors(index)) for index in range(graph.TensorsLength()))
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    operations = tuple(_operation(operator, names[operator.OpcodeIndex()]) for operator in operators)
    return Graph(_numbers(graph.InputsAsNumpy()), _numbers(graph.OutputsAsNumpy()), tensors, operations)


def _believe(*lengths: int) -> None:
    if max(lengths) > _MOST_ITEMS:
        raise ValueError(f"it claims {max(lengths)} items in a list")


def _numbers(vector: Any) -> tuple[int, ...]:
    # The generated readers give the number 0 for a vector that is absent.
    return () if isinstance(vector, int) else tuple(int(number) for number in vector)


def _operation_name(code: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == schema.BuiltinOperator.CUSTOM:
        return str(code.CustomCode().decode())
    return _name_of(schema.BuiltinOperator, number)


def _name_of(enumeration: Any, number: int) -> str:
    return next((name for name, value in vars(enumeration).items() if value == number), f"number {number}")


def _tensor(model: Any, tensor: Any) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    quantization = tensor.Quantization()
    scales = _vector(quantization.ScaleAsNumpy(), np.float32) if quantization else np.empty(0, np.float32)
    zeros = _vector(quantization.ZeroPointAsNumpy(), np.int64) if quantization else np.empty(0, np.int64)
    if not zeros.size:
        zeros = np.zeros(scales.size, np.int64)
    if zeros.size != scales.size:
        raise ValueError(f"a tensor has {scales.size} scales and {zeros.size} zero points")
    shape = _numbers(tensor.ShapeAsNumpy())
    if any(side < 0 for side in shape):
        raise ValueError(f"a tensor has the shape {shape}")
    return Tensor(
        name=(tensor.Name() or b"").decode(),
        shape=shape,
        dtype=_name_of(schema.TensorType, tensor.Type()),
        scales=scales,
        zero_points=zeros,
        channel_axis=quantization.QuantizedDimension() if quantization else 0,
        content=_content(model, tensor.Buffer()),
    )


def _content(model: Any, number: int) -> np.ndarray:
    if number >= model.BuffersLength():
        raise ValueError(f"it lacks buffer {number}")
    return _vector(model.Buffers(number).DataAsNumpy(), np.uint8)


def _vector(vector: Any, dtype: Any) -> np.ndarray:
    return np.empty(0, dtype) if isinstance(vector, int) else np.asarray(vector, dtype)


def _operation(operator: Any, name: str) -> Operation:
    inputs, outputs = _numbers(operator.InputsAsNumpy()), _numbers(operator.OutputsAsNumpy())
    return Operation(name, inputs, outputs, _options(operator, name))


def _options(operator: Any, name: str) -> dict[str, Any]:
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers

    kinds = {"CONV_2D": schema.Conv2DOptions, "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptions}
    if name in kinds:
        table = operator.BuiltinOptions()
        options = kinds[name]()
        options.Init(table.Bytes, table.Pos)
        return {
            "stride": (options.StrideH(), options.StrideW()),
            "padding": _name_of(schema.Padding, options.Padding()),
            "dilation": (options.DilationHFactor(), options.DilationWFactor()),
            "activation": _name_of(schema.ActivationFunctionType, options.FusedActivationFunction()),
            "channel_multiplier": options.DepthMultiplier() if name == "DEPTHWISE_CONV_2D" else 1,
        }
    if name != POSTPROCESS:
        return {}
    # Only what is wanted is looked up: a damaged map may hold itself.
    custom = flexbuffers.GetRoot(_vector(operator.CustomOptionsAsNumpy(), np.uint8).tobytes()).AsMap
    return {key: custom[key].AsFloat for key in BOX_SCALES}
