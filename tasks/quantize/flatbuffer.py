"""Flatbuffers: reading a .tflite file without running it."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable

_IDENTIFIER = b"TFL3"


def read(data: bytes) -> Any:
    """Reads a .tflite file.

    Args:
        data: Content of the file.

    Returns:
        The `ModelT` object of LiteRT's schema; its arrays are views of `data`, and constants that lie behind the
        flatbuffer are joined to it.

    Raises:
        ArtifactUnreadable: If the content is not a whole .tflite file.
    """
    from ai_edge_litert.schema_py_generated import ModelT

    _verify(data)
    with whole():
        model = ModelT.InitFromPackedBuf(data, 0)
    if len(model.subgraphs or []) != 1:
        raise ArtifactUnreadable(f"the file has {len(model.subgraphs or [])} graphs; an artifact has one")
    for buffer in model.buffers:
        # The schema's second way to store a constant, which litert-quantizer uses; 0 and 1 mean that it is unused.
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


@contextmanager
def whole() -> Iterator[None]:
    """Gives what a damaged file does to code that walks it one name: `ArtifactUnreadable`."""
    try:
        yield
    except (struct.error, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactUnreadable(f"the file is damaged: {type(error).__name__}: {error}") from error


def write(model: Any) -> bytes:
    """Makes the file of a model that `read` gave.

    Args:
        model: The `ModelT` object.

    Returns:
        Content of the .tflite file, all constants inside the flatbuffer.
    """
    import flatbuffers

    builder = flatbuffers.Builder(
        sum(0 if buffer.data is None else len(buffer.data) for buffer in model.buffers) + 65536
    )
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _verify(data: bytes) -> None:
    """Lets LiteRT check every offset, since a damaged one can send the Python reader astray for minutes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if data[4:8] != _IDENTIFIER:
        raise ArtifactUnreadable("the file is not a .tflite file: the identifier TFL3 is missing")
    try:
        Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    except (ValueError, RuntimeError) as error:
        raise ArtifactUnreadable(f"the file is damaged: {str(error).splitlines()[0]}") from error


def operator_name(model: Any, operator: Any) -> str:
    """Returns the name of an operator, such as `CONV_2D`; custom operators have the name that they carry."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes above 126 do not fit the old field, and files from before 2020 have only that one.
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _names("BuiltinOperator")[builtin]
    return text(code.customCode) if name == "CUSTOM" else name


def element_type(tensor: Any) -> str:
    """Returns the element type of a tensor in lower case, such as `float32` or `int8`."""
    return _names("TensorType")[tensor.type].lower()


def text(value: bytes | str | None) -> str:
    """Returns a string of the file, which its reader gives as bytes."""
    return value.decode() if isinstance(value, bytes) else value or ""


def constant(model: Any, tensor: Any) -> bytes | None:
    """Returns the stored bytes of a constant tensor, or None for a computed one."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else np.asarray(data, np.uint8).tobytes()


def scales(tensor: Any) -> np.ndarray:
    """Returns the quantization scales of a tensor: float32, empty if it is not quantized, else one or one a channel."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None:
        return np.zeros(0, np.float32)
    return np.asarray(quantization.scale, np.float32)


@lru_cache
def _names(enumeration: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated

    members = vars(getattr(schema_py_generated, enumeration))
    return {value: name for name, value in members.items() if isinstance(value, int)}
