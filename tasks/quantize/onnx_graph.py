"""ONNX graphs: an artifact's bytes as a graph, and the convolutions in it with what they compute in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable, AuditMismatch
from tasks.quantize.layer_names import layer_of

CONVOLUTIONS = ("Conv", "ConvInteger")
"""Operators of the artifacts that toolchains make here."""

_DYNAMIC_SUFFIX = "_quant"
"""What onnxruntime.quantization appends to the name of a Conv that it makes a ConvInteger."""

_CENTRES = {"int8": (0,), "uint8": (128,)}
"""Zero points of symmetric activations; unsigned integers are the signed ones moved by 128."""


@dataclass(frozen=True)
class Convolution:
    """One convolution of a graph."""

    layer: str | None
    """Canonical name of its layer, or None if its name holds none."""

    arithmetic: str
    """In the words of `Audit.mac_share`."""

    stored: str
    """Element type of the stored weights."""

    weights: np.ndarray
    """(out, in / groups, height, width), as stored."""

    groups: int
    """Number of groups; a depthwise one has as many as channels."""

    macs: int
    """Multiply-accumulates."""

    granularity: str | None
    """`per_channel` or `per_tensor` if the weights are integers of several channels, else None."""

    zero_points: tuple[tuple[str, int], ...]
    """(element type, zero point) of the integer activations that it reads and writes, if they are known before."""

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads one input channel."""
        return self.groups > 1 and self.weights.shape[1] == 1

    @property
    def by_channel(self) -> np.ndarray:
        """The stored weights as (out, weights of one)."""
        return self.weights.reshape(len(self.weights), -1)

    @property
    def symmetric(self) -> bool | None:
        """Whether its integer activations stand symmetrically around zero; None if it has none of known zero point."""
        return all(zero in _CENTRES.get(kind, ()) for kind, zero in self.zero_points) if self.zero_points else None


class Graph:
    """A checked graph of static shapes."""

    def __init__(self, data: bytes) -> None:
        """Reads and checks a model.

        Args:
            data: Content of a .onnx file.

        Raises:
            ArtifactUnreadable: If it is not a whole .onnx file.
        """
        import onnx

        self.model = parsed(data)
        with _whole():
            onnx.checker.check_model(self.model)
        self.graph = self.model.graph
        self.constants: dict[str, Any] = {item.name: item for item in self.graph.initializer}
        self.producers: dict[str, Any] = {name: node for node in self.graph.node for name in node.output}
        self.consumers: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {item.name: item for item in self.graph.output}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by name, as inferred; 0 where a size is not fixed."""
        import onnx

        with _whole():
            inferred = onnx.shape_inference.infer_shapes(self.model, strict_mode=True).graph
        items = (*inferred.input, *inferred.value_info, *inferred.output)
        return {item.name: tuple(size.dim_value for size in item.type.tensor_type.shape.dim) for item in items}

    def constant(self, name: str) -> np.ndarray | None:
        """Returns the values of a constant, or None if the tensor is none."""
        import onnx

        if name not in self.constants:
            return None
        with _whole():
            return np.asarray(onnx.numpy_helper.to_array(self.constants[name]))

    def convolutions(self) -> tuple[Convolution, ...]:
        """Lists the convolutions in the order of execution.

        Raises:
            ArtifactUnreadable: If a shape is not static.
            AuditMismatch: If one has weights that are not constant.
        """
        return tuple(self._convolution(node) for node in self.graph.node if node.op_type in CONVOLUTIONS)

    def _convolution(self, node: Any) -> Convolution:
        source = self._dequantized(node.input[1])
        weights = self.constant(node.input[1] if source is None else source.input[0])
        if weights is None:
            raise AuditMismatch(f"the weights of {node.name or 'a convolution'} are not constant")
        size = math.prod(self.shapes.get(node.output[0], (0,)))
        if not size:
            raise ArtifactUnreadable(f"the shape of {node.output[0]} is not static")
        groups = next((item.i for item in node.attribute if item.name == "group"), 1)
        return Convolution(
            layer=layer_of(node.name.removesuffix(_DYNAMIC_SUFFIX)),
            arithmetic=self._arithmetic(node, weights),
            stored=str(weights.dtype),
            weights=weights,
            groups=groups,
            macs=size * math.prod(weights.shape[1:]),
            granularity=self._granularity(node, weights),
            zero_points=self._zero_points(node),
        )

    def _arithmetic(self, node: Any, weights: np.ndarray) -> str:
        if node.op_type == "ConvInteger":
            return "dynamic_int8" if self._made_by(node.input[0], "DynamicQuantizeLinear") else str(weights.dtype)
        if weights.dtype.kind == "f":
            return str(weights.dtype)
        return "int8" if self._is_integer(node) else f"weight_only_{weights.dtype}"

    def _is_integer(self, node: Any) -> bool:
        """Says whether a Conv between integers may be executed on them.

        What ONNX Runtime asks for (`core/optimizer/qdq_transformer/selectors_actions/qdq_selectors.cc`,
        `ConvNodeGroupSelector::Check`): activations and weights of 8 bits through DequantizeLinear, a bias of 32 bits
        through it too, and nobody but one QuantizeLinear, to the type of the input, reads the output.
        """
        sources = [self._dequantized(name) for name in node.input]
        readers = self.consumers.get(node.output[0], [])
        if (
            None in sources
            or node.output[0] in self.outputs
            or [item.op_type for item in readers] != ["QuantizeLinear"]
        ):
            return False
        types = [str(zero.dtype) for source in sources if (zero := self.constant(source.input[2])) is not None]
        written = self.constant(readers[0].input[2])
        if not self._made_by(sources[0].input[0], "QuantizeLinear") or len(types) != len(sources) or written is None:
            return False
        return types[0] in _CENTRES and types[1] in _CENTRES and types[2:] in ([], ["int32"]) and (
            str(written.dtype) == types[0]
        )  # fmt: skip

    def _granularity(self, node: Any, weights: np.ndarray) -> str | None:
        if weights.dtype.kind == "f" or len(weights) == 1:
            return None
        source = self._dequantized(node.input[1])
        # A ConvInteger is multiplied by its scales afterwards; the toolchain has one for all channels.
        scales = None if source is None else self.constant(source.input[1])
        return "per_channel" if scales is not None and scales.size > 1 else "per_tensor"

    def _zero_points(self, node: Any) -> tuple[tuple[str, int], ...]:
        readers = [item for item in self.consumers.get(node.output[0], []) if item.op_type == "QuantizeLinear"]
        before = self._dequantized(node.input[0])
        found = []
        for item in (*([] if before is None else [before]), *readers):
            values = self.constant(item.input[2])
            found += [] if values is None else [(str(values.dtype), int(value)) for value in values.reshape(-1)]
        return tuple(found)

    def _dequantized(self, name: str) -> Any:
        """Returns the DequantizeLinear that makes a tensor, or None."""
        return self.producers[name] if self._made_by(name, "DequantizeLinear") else None

    def _made_by(self, name: str, operator: str) -> bool:
        return name in self.producers and self.producers[name].op_type == operator


def parsed(data: bytes) -> Any:
    """Parses a model.

    Args:
        data: Content of a .onnx file.

    Returns:
        The `ModelProto`.

    Raises:
        ArtifactUnreadable: If it is not one.
    """
    import onnx

    with _whole():
        return onnx.load_from_string(data)


@contextmanager
def _whole() -> Iterator[None]:
    """Calls a file unreadable when the library cannot make sense of it."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        yield
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = str(error).splitlines()
        raise ArtifactUnreadable(f"the artifact is not a whole .onnx file: {lines[0] if lines else ''}") from error
    except (ValueError, TypeError) as error:
        raise ArtifactUnreadable(f"the artifact has a constant that cannot be read: {error}") from error
