"""OpenVINO: runs .onnx files and OpenVINO models on the CPU, compiled for it when they are opened."""

import math
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.quantize import openvino_archive
from tasks.runtimes.base import Option, Runtime, checked, input_table, register, run_each
from tasks.types import Profile, RuntimeSettings

_PRECISION = "inference_precision"
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_ARITHMETICS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "I8": "int8"}
"""Words of `Audit.mac_share` by what the names of OpenVINO's primitives end with; `I8` is unsigned."""

_KERNELS = ("Convolution", "FullyConnected")
"""What convolutions become: a 1x1 one whose integer weights are widened may be the second."""


class OpenVINOSession:
    """A compiled model and its one inference request."""

    def __init__(self, data: bytes, settings: RuntimeSettings) -> None:
        """Reads and compiles a model.

        Args:
            data: Content of an .onnx file or of an OpenVINO archive.
            settings: Number of threads and inference precision.

        Raises:
            ArtifactUnreadable: If the content is not a model that OpenVINO can read, or not a detector.
        """
        model = opened(data)
        compiled = compiled_for_cpu(model, settings)
        self._boxes, self._scores = _output_indices(model)
        self._request: Any = compiled.create_infer_request()
        self._table = input_table(np.dtype(np.float32))

    def prepare(self, pixels: np.ndarray) -> Any:
        """See `Session.prepare`."""
        import openvino

        # The tensor shares the memory of the array, which it keeps alive.
        return openvino.Tensor(np.ascontiguousarray(self._table[pixels].transpose(0, 3, 1, 2)), shared_memory=True)

    def infer(self, prepared: Any) -> None:
        """See `Session.infer`."""
        try:
            # Shared outputs: they are copied when they are read, not here.
            self._request.infer(prepared, share_outputs=True)
        except RuntimeError as error:
            raise InferenceFailed(f"OpenVINO failed: {_first_line(error)}") from error

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.outputs`."""
        boxes, scores = (self._request.get_output_tensor(index).data for index in (self._boxes, self._scores))
        return checked(boxes.astype(np.float32), scores.astype(np.float32))

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.run`."""
        return run_each(self, pixels)

    def close(self) -> None:
        """See `Session.close`."""
        self._request = None


@dataclass(frozen=True)
class ExecutedKernel:
    """One convolution as the CPU executes it."""

    node: str
    """Name of the node that executes it."""

    names: tuple[str, ...]
    """Names of the operators of the model that were fused into it."""

    arithmetic: str
    """What it computes in, in the words of `Audit.mac_share`."""

    macs: int
    """Multiply-accumulates of one inference."""


def imported() -> Any:
    """Imports OpenVINO.

    Its import sends an event to Google Analytics unless the user has opted out in a file of the home folder. Where
    the package that does so is missing, OpenVINO and NNCF fall back to a stub that sends nothing: so it is missing.

    Returns:
        The module `openvino`.
    """
    if "openvino_telemetry" not in sys.modules:
        absent: Any = None
        sys.modules["openvino_telemetry"] = absent
    import openvino

    return openvino


def opened(data: bytes) -> Any:
    """Reads a model of a detector from memory.

    Args:
        data: Content of an .onnx file or of an OpenVINO archive.

    Returns:
        The `openvino.Model`: input `images` (1, 3, S, S), outputs `boxes` (1, A, 4) and `scores` (1, A, C).

    Raises:
        ArtifactUnreadable: If the content is not a model that OpenVINO can read, or not a detector.
    """
    graph, weights = openvino_archive.unpacked(data) if data[:4] == openvino_archive.MAGIC else (data, b"")
    core = imported().Core()
    try:
        model = core.read_model(graph, weights) if weights else core.read_model(graph)
        _check_roles(model)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ArtifactUnreadable(f"OpenVINO cannot read the artifact: {_first_line(error)}") from error
    return model


def compiled_for_cpu(model: Any, settings: RuntimeSettings, **wishes: Any) -> Any:
    """Compiles a model for the CPU of this machine.

    Args:
        model: The `openvino.Model`.
        settings: Number of threads and inference precision.
        **wishes: Further properties: `PERF_COUNT=True` counts the time of each operator.

    Returns:
        The `openvino.CompiledModel`.

    Raises:
        ArtifactUnreadable: If OpenVINO cannot compile it.
    """
    properties = {
        # Left alone, OpenVINO computes float32 models in bfloat16 wherever the CPU can.
        "INFERENCE_PRECISION_HINT": _HINTS[settings.option(_PRECISION, "float32")],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": settings.threads,
        # Who measures latency has bound the process to its CPUs already; two of them may be one core, and two threads
        # are two threads all the same.
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": True,
        **wishes,
    }
    try:
        return imported().Core().compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise ArtifactUnreadable(f"OpenVINO cannot compile the artifact: {_first_line(error)}") from error


def executed_kernels(compiled: Any) -> tuple[ExecutedKernel, ...]:
    """Lists the convolutions of a compiled model.

    Args:
        compiled: The `openvino.CompiledModel`.

    Returns:
        They, in order of execution.
    """
    return tuple(
        _kernel(operation)
        for operation in compiled.get_runtime_model().get_ordered_ops()
        if runtime_fact(operation, "layerType") in _KERNELS
    )


def executed(data: bytes, settings: RuntimeSettings) -> dict[str, float]:
    """Tells what arithmetic an artifact is executed in on this machine.

    Args:
        data: Content of an .onnx file or of an OpenVINO archive.
        settings: How it is run.

    Returns:
        Share of multiply-accumulates by arithmetic.

    Raises:
        ArtifactUnreadable: If the content is not a model of a detector.
    """
    macs = Counter[str]()
    for kernel in executed_kernels(compiled_for_cpu(opened(data), settings)):
        macs[kernel.arithmetic] += kernel.macs
    return {name: count / macs.total() for name, count in macs.most_common()}


def runtime_fact(operation: Any, name: str) -> str:
    """Reads what OpenVINO notes of an operator that it executes.

    Args:
        operation: An operator of a compiled model's runtime model.
        name: `layerType`, `primitiveType`, `originalLayersNames`, `outputPrecisions`, ...

    Returns:
        The fact; empty if there is none of that name.
    """
    facts = operation.get_rt_info()
    return str(facts[name].value) if name in facts else ""


def _kernel(operation: Any) -> ExecutedKernel:
    # Not `runtimePrecision`, which says i8 as well where integers are widened first and a float primitive follows.
    precision = runtime_fact(operation, "primitiveType").rpartition("_")[2]
    weights, output = math.prod(operation.input(1).get_shape()), list(operation.output(0).get_shape())
    del output[1 if runtime_fact(operation, "layerType") == "Convolution" else -1]
    return ExecutedKernel(
        node=str(operation.get_friendly_name()),
        names=tuple(runtime_fact(operation, "originalLayersNames").split(",")),
        arithmetic=_ARITHMETICS.get(precision, precision),
        # Each weight is used once at each place of the output, grouped or not.
        macs=weights * math.prod(output),
    )


def profiled(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Tells where the time goes: see `Runtime.profile`."""
    from tasks.profiles.openvino import profile

    return profile(data, settings, pixels, seconds)


def _check_roles(model: Any) -> None:
    inputs = [tuple(port.get_partial_shape().to_shape()) for port in model.inputs]
    outputs = {name: port.get_partial_shape().to_shape() for port in model.outputs for name in port.get_names()}
    boxes, scores = outputs.get("boxes", ()), outputs.get("scores", ())
    is_image = len(inputs) == 1 and len(inputs[0]) == 4 and inputs[0][:2] == (1, 3)
    if not is_image or len(boxes) != 3 or len(scores) != 3 or boxes[2] != 4:
        raise ArtifactUnreadable(
            f"the artifact is not a detector: inputs {inputs}, outputs {sorted(outputs)}; one image (1, 3, S, S),"
            " `boxes` (1, A, 4) and `scores` (1, A, C) are wanted"
        )


def _output_indices(model: Any) -> tuple[int, int]:
    names = [port.get_names() for port in model.outputs]
    boxes, scores = (next(index for index, found in enumerate(names) if role in found) for role in ("boxes", "scores"))
    return boxes, scores


def _first_line(error: Exception) -> str:
    # OpenVINO's messages begin with the places in its own source that the error came through.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or ["no message"])[0]


register(
    Runtime(
        name="openvino",
        formats=("openvino.zip", "onnx"),
        framework="none",
        open=OpenVINOSession,
        packages=("openvino",),
        extra="openvino",
        imported=imported,
        rounds_by_isa=True,
        options=(
            Option(
                _PRECISION,
                tuple(_HINTS),
                "what float layers compute in; a CPU without instructions for it computes in float32",
            ),
        ),
        executed=executed,
        profile=profiled,
    )
)
