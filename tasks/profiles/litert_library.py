"""LiteRT's own profiler, which its Python package has in a library but not in Python.

`libLiteRt.so` exports LiteRT's C interface. A model compiled there is the same interpreter with the same XNNPACK
delegate as Python's, and tells the time of every operator, those inside the delegate included.
"""

import ctypes
import importlib.util
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable, InferenceFailed

_VERSION = "2.3"
"""The interface is not promised to stay, and a call with wrong arguments crashes: it is used only of the version that
it was written for. Declarations: litert/c/*.h of https://github.com/google-ai-edge/LiteRT."""

_CPU, _READ, _WRITE = 1, 0, 1
"""kLiteRtHwAcceleratorCpu, kLiteRtTensorBufferLockModeRead, kLiteRtTensorBufferLockModeWrite."""

_BUILTIN_EVENT, _DELEGATE_EVENT = 2, 8
"""OPERATOR_INVOKE_EVENT and DELEGATE_PROFILED_OPERATOR_INVOKE_EVENT (litert_profiler_event.h)."""

_TYPE_BYTES = 1024
"""More than a `LiteRtRankedTensorType` has; it is passed on unread."""

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "LiteRtCreateEnvironment": (c_int, c_void_p, c_void_p),
    "LiteRtDestroyEnvironment": (c_void_p,),
    "LiteRtCreateModelFromBuffer": (c_void_p, c_char_p, c_size_t, c_void_p),
    "LiteRtDestroyModel": (c_void_p,),
    "LiteRtCreateOptions": (c_void_p,),
    "LiteRtDestroyOptions": (c_void_p,),
    "LiteRtSetOptionsHardwareAccelerators": (c_void_p, c_int),
    "LiteRtCreateOpaqueOptions": (c_char_p, c_void_p, c_void_p, c_void_p),
    "LiteRtAddOpaqueOptions": (c_void_p, c_void_p),
    "LiteRtCreateCompiledModel": (c_void_p, c_void_p, c_void_p, c_void_p),
    "LiteRtDestroyCompiledModel": (c_void_p,),
    "LiteRtGetModelSubgraph": (c_void_p, c_size_t, c_void_p),
    "LiteRtGetNumSubgraphInputs": (c_void_p, c_void_p),
    "LiteRtGetNumSubgraphOutputs": (c_void_p, c_void_p),
    "LiteRtGetSubgraphInput": (c_void_p, c_size_t, c_void_p),
    "LiteRtGetSubgraphOutput": (c_void_p, c_size_t, c_void_p),
    "LiteRtGetRankedTensorType": (c_void_p, c_void_p),
    "LiteRtGetCompiledModelInputBufferRequirements": (c_void_p, c_size_t, c_size_t, c_void_p),
    "LiteRtGetCompiledModelOutputBufferRequirements": (c_void_p, c_size_t, c_size_t, c_void_p),
    "LiteRtCreateManagedTensorBufferFromRequirements": (c_void_p, c_void_p, c_void_p, c_void_p),
    "LiteRtDestroyTensorBuffer": (c_void_p,),
    "LiteRtGetTensorBufferPackedSize": (c_void_p, c_void_p),
    "LiteRtLockTensorBuffer": (c_void_p, c_void_p, c_int),
    "LiteRtUnlockTensorBuffer": (c_void_p,),
    "LiteRtRunCompiledModel": (c_void_p, c_size_t, c_size_t, c_void_p, c_size_t, c_void_p),
    "LiteRtCompiledModelGetProfiler": (c_void_p, c_void_p),
    "LiteRtStartProfiler": (c_void_p,),
    "LiteRtStopProfiler": (c_void_p,),
    "LiteRtResetProfiler": (c_void_p,),
    "LiteRtGetNumProfilerEvents": (c_void_p, c_void_p),
    "LiteRtGetProfilerEvents": (c_void_p, c_int, c_void_p),
}


class _Event(ctypes.Structure):
    """`ProfiledEventData` (litert_profiler_event.h)."""

    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory", c_size_t * 6),
        ("index", c_uint64),
        ("more", c_uint64),
        ("source", c_int),
    )


@dataclass(frozen=True)
class Execution:
    """The execution of one operator, or of one of the operators that a delegate has made of it."""

    name: str
    """What the file or the delegate calls its kind: `CONCATENATION`, `Fully Connected (NC, QS8, QC8W) GEMM`."""

    index: int | None
    """Place of the operator in the file; None inside a delegate."""

    time_ms: float
    """Time that it took, in whole microseconds."""


def is_available() -> bool:
    """Says whether the profiler of the installed package can be used."""
    return metadata.version("ai-edge-litert").startswith(f"{_VERSION}.") and _path() is not None


class ProfiledModel:
    """A compiled model that tells what its operators take. A context manager."""

    def __init__(self, data: bytes, threads: int) -> None:
        """Compiles a model for the CPU with the default delegate.

        Args:
            data: Content of a .tflite file.
            threads: Number of threads.

        Raises:
            ArtifactUnreadable: If LiteRT cannot load it.
        """
        self._frees: list[Callable[[], object]] = []
        # LiteRT keeps pointers to these.
        self._kept: list[Any] = [ctypes.create_string_buffer(data, len(data))]
        try:
            self._environment = self._new("Environment", 0, None)
            model = self._new("ModelFromBuffer", self._environment, self._kept[0], len(data), free="Model")
            self._model = self._new("CompiledModel", self._environment, model, self._options(threads))
            self._profiler = _got("LiteRtCompiledModelGetProfiler", self._model)
            graph = _got("LiteRtGetModelSubgraph", model, 0)
            self._inputs, self._outputs = self._buffers(graph, "Input"), self._buffers(graph, "Output")
        except InferenceFailed as error:
            self.close()
            raise ArtifactUnreadable(f"LiteRT cannot load the artifact: {error}") from error

    def run(self, prepared: np.ndarray) -> tuple[Execution, ...]:
        """Runs the model.

        Args:
            prepared: Its input, in its shape and element type.

        Returns:
            What was executed, in order.

        Raises:
            InferenceFailed: If it fails.
        """
        self._write(self._inputs[0], np.ascontiguousarray(prepared))
        _call("LiteRtResetProfiler", self._profiler)
        _call("LiteRtStartProfiler", self._profiler)
        ends = (len(self._inputs), self._inputs, len(self._outputs), self._outputs)
        _call("LiteRtRunCompiledModel", self._model, 0, *ends)
        _call("LiteRtStopProfiler", self._profiler)
        return self._executions()

    def outputs(self) -> tuple[bytes, ...]:
        """Returns the content of each output tensor after the last run, in the order of the file."""
        return tuple(self._read(buffer) for buffer in self._outputs)

    def close(self) -> None:
        """Frees the model."""
        while self._frees:
            self._frees.pop()()

    def __enter__(self) -> "ProfiledModel":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _new(self, what: str, *arguments: Any, free: str = "") -> int:
        made = _got(f"LiteRtCreate{what}", *arguments)
        self._frees.append(lambda: getattr(_library(), f"LiteRtDestroy{free or what}")(made))
        return made

    def _options(self, threads: int) -> int:
        options = self._new("Options")
        _call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        keep = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)
        # As litert/c/options/litert_cpu_options.cc and litert_runtime_options.cc write them. Version 2.3 looks for the
        # threads of the delegate under one name, and for those of the built-in kernels under the other.
        texts = {
            b"xnnpack": f"num_threads = {threads}\n",
            b"cpu_delegate": f"num_threads = {threads}\n",
            b"runtime_options_string": "enable_profiling = true\n",
        }
        self._kept.append(keep)
        for identifier, words in texts.items():
            self._kept.append(ctypes.create_string_buffer(words.encode()))
            added = _got("LiteRtCreateOpaqueOptions", identifier, self._kept[-1], keep)
            _call("LiteRtAddOpaqueOptions", options, added)
        return options

    def _buffers(self, graph: int, end: str) -> Any:
        buffers = []
        for place in range(_number(f"LiteRtGetNumSubgraph{end}s", graph, c_size_t)):
            kind = ctypes.create_string_buffer(_TYPE_BYTES)
            _call("LiteRtGetRankedTensorType", _got(f"LiteRtGetSubgraph{end}", graph, place), kind)
            wanted = _got(f"LiteRtGetCompiledModel{end}BufferRequirements", self._model, 0, place)
            buffers.append(
                self._new(
                    "ManagedTensorBufferFromRequirements", self._environment, kind, wanted, free="TensorBuffer"
                )
            )  # fmt: skip
        return (c_void_p * len(buffers))(*buffers)

    def _write(self, buffer: int, values: np.ndarray) -> None:
        size = _number("LiteRtGetTensorBufferPackedSize", buffer, c_size_t)
        if size != values.nbytes:
            raise InferenceFailed(f"the input has {values.nbytes} bytes; the model wants {size}")
        ctypes.memmove(_got("LiteRtLockTensorBuffer", buffer, after=(_WRITE,)), values.ctypes.data, size)
        _call("LiteRtUnlockTensorBuffer", buffer)

    def _read(self, buffer: int) -> bytes:
        size = _number("LiteRtGetTensorBufferPackedSize", buffer, c_size_t)
        content = ctypes.string_at(_got("LiteRtLockTensorBuffer", buffer, after=(_READ,)), size)
        _call("LiteRtUnlockTensorBuffer", buffer)
        return content

    def _executions(self) -> tuple[Execution, ...]:
        count = _number("LiteRtGetNumProfilerEvents", self._profiler, c_int)
        events = (_Event * count)()
        _call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return tuple(
            Execution(
                event.tag.decode(),
                int(event.index) if event.kind == _BUILTIN_EVENT else None,
                event.elapsed_us / 1e3,
            )
            for event in events
            if event.kind in (_BUILTIN_EVENT, _DELEGATE_EVENT)
        )


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library(), name)(*arguments)
    if status:
        raise InferenceFailed(f"{name} failed with status {status}")


def _got(name: str, *arguments: Any, after: tuple[Any, ...] = ()) -> int:
    """Returns the pointer that a function writes to its last argument, or to that before `after`."""
    found = c_void_p()
    _call(name, *arguments, byref(found), *after)
    if not found.value:
        raise InferenceFailed(f"{name} gave nothing")
    return found.value


def _number(name: str, of: int, kind: Any) -> int:
    found = kind()
    _call(name, of, byref(found))
    return int(found.value)


def _path() -> Path | None:
    package = importlib.util.find_spec("ai_edge_litert")
    folders = [Path(folder) for folder in (package and package.submodule_search_locations) or ()]
    found = [folder / f"libLiteRt.{suffix}" for folder in folders for suffix in ("so", "dylib")]
    return next((path for path in found if path.exists()), None)


@lru_cache(maxsize=1)
def _library() -> Any:
    library = ctypes.CDLL(str(_path()))
    for name, kinds in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = kinds, None if "Destroy" in name else c_int
    return library
