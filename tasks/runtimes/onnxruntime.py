"""ONNX Runtime: runs .onnx graphs on the CPU."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.quantize.layer_names import layer_of
from tasks.runtimes.base import Option, Runtime, checked, input_table, register, run_each
from tasks.types import Profile, RuntimeSettings

_OUTPUTS = ["boxes", "scores"]

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
"""Members of `GraphOptimizationLevel` by choice of the option."""

_SILENT = 4
"""Severity of messages that end the process: what else is wrong is raised."""

_EXECUTED = {"QLinearConv": "int8", "ConvInteger": "dynamic_int8"}
"""Arithmetic of the operators that convolve integers; all others convolve in float32."""

_OPTIMIZATION = Option("graph_optimization", tuple(_LEVELS), "how far graphs are rewritten when they are loaded")

_PRECISION = Option(
    "integer_precision",
    ("fast", "exact"),
    "exact widens int8 weights, since CPUs without VNNI add products of uint8 and int8 in 16 bits that saturate",
)
"""On such CPUs `fast` costs AP: pairs of products beyond 2^15 are cut. With VNNI both are exact, and `exact` is slower.
It is `session.x64quantprecision` in ONNX Runtime's words."""


class OnnxRuntimeSession:
    """A loaded graph."""

    def __init__(self, data: bytes, settings: RuntimeSettings, **wishes: Any) -> None:
        """Loads a graph.

        Args:
            data: Content of a .onnx file.
            settings: Number of threads and options.
            **wishes: Further attributes of `onnxruntime.SessionOptions`.

        Raises:
            ArtifactUnreadable: If the content is not a graph that ONNX Runtime can load, or not a detector.
        """
        self._session = _loaded(data, settings, **wishes)
        self._input = _checked_input(self._session)
        self._table = input_table(np.dtype(np.float32))
        self._raw: Any = None

    def prepare(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """See `Session.prepare`."""
        return {self._input: np.ascontiguousarray(self._table[pixels].transpose(0, 3, 1, 2))}

    def infer(self, prepared: dict[str, np.ndarray]) -> None:
        """See `Session.infer`."""
        try:
            self._raw = self._session.run(_OUTPUTS, prepared)
        except _failures() as error:
            raise InferenceFailed(f"ONNX Runtime failed: {error}") from error

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.outputs`."""
        return checked(*self._raw)

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.run`."""
        return run_each(self, pixels)

    def end_profiling(self) -> Path:
        """Ends the profiling that `enable_profiling` among the wishes began.

        Returns:
            The file that ONNX Runtime wrote: `profile_file_prefix` with the time.
        """
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """See `Session.close`."""
        self._session = self._raw = None


def executed(data: bytes, settings: RuntimeSettings) -> dict[str, float]:
    """Tells what ONNX Runtime makes of a graph, from the graph that it writes out after all rewriting.

    Args:
        data: Content of a .onnx file.
        settings: Options.

    Returns:
        Share of the multiply-accumulates by arithmetic; what the rewritten graph convolves in float32 is `float32`,
        whatever integers its weights and inputs were stored as.

    Raises:
        ArtifactUnreadable: If the content is not a graph that ONNX Runtime can load, or its layers cannot be told.
    """
    import onnx

    from tasks.quantize.onnx_graph import Graph

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        _loaded(data, settings, optimized_model_filepath=str(path))
        optimized = onnx.load(path).graph
    operators = {}
    for node in optimized.node:
        layer = convolved_layer(node.op_type, node.name)
        if layer is not None:
            operators[layer] = node.op_type
    macs = Counter[str]()
    for convolution in Graph(data).convolutions():
        if convolution.layer is None or convolution.layer not in operators:
            raise ArtifactUnreadable("the optimized graph has lost the names of layers")
        macs[arithmetic_of(operators[convolution.layer])] += convolution.macs
    return {name: count / macs.total() for name, count in macs.most_common()}


def arithmetic_of(operator: str) -> str:
    """Returns what an operator of an optimized graph convolves in, in the words of `Audit.mac_share`."""
    return _EXECUTED.get(operator, "float32")


def convolved_layer(operator: str, name: str) -> str | None:
    """Tells which layer a node of an optimized graph convolves; ONNX Runtime appends its own marks to names.

    Args:
        operator: The kind of the node.
        name: Its name.

    Returns:
        The canonical name of the layer; None if the node is no convolution, or its name holds no layer.
    """
    return layer_of(re.sub(r"(_nchwc|_quant|_token_\d+)+$", "", name)) if "Conv" in operator else None


def _loaded(data: bytes, settings: RuntimeSettings, **wishes: Any) -> Any:
    """Opens an InferenceSession; `wishes` are further attributes of its options."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    level = _LEVELS[_chosen(_OPTIMIZATION, settings)]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    # Threads that wait busily would slow down what is timed beside this session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", str(int(_chosen(_PRECISION, settings) == "exact")))
    for name, value in wishes.items():
        setattr(options, name, value)
    try:
        # Without fallback: it would print its apologies and try the same provider once more.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except _failures() as error:
        raise ArtifactUnreadable(f"ONNX Runtime cannot load the artifact: {error}") from error


def _chosen(option: Option, settings: RuntimeSettings) -> str:
    return settings.option(option.name, option.choices[0])


def _failures() -> tuple[type[Exception], ...]:
    """Returns the exceptions of ONNX Runtime, which have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (item for item in vars(state).values() if isinstance(item, type) and issubclass(item, Exception))
    return (*own, RuntimeError, ValueError)


def _checked_input(session: Any) -> str:
    inputs, outputs = session.get_inputs(), {item.name: item for item in session.get_outputs()}
    ranks = [len(item.shape) for item in (*inputs, *(outputs[name] for name in _OUTPUTS if name in outputs))]
    if len(inputs) != 1 or set(outputs) != set(_OUTPUTS) or ranks != [4, 3, 3] or inputs[0].type != "tensor(float)":
        raise ArtifactUnreadable(
            f"the artifact is not a detector: it has the inputs {[item.name for item in inputs]} and the outputs"
            f" {sorted(outputs)}; one float image (1, 3, S, S), boxes (1, A, 4) and scores (1, A, C) are wanted"
        )
    return str(inputs[0].name)


def profiled(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Tells where the time goes: see `Runtime.profile`."""
    from tasks.profiles.onnxruntime import profile

    return profile(data, settings, pixels, seconds)


def imported() -> Any:
    """Imports ONNX Runtime; see `Runtime.imported`."""
    import onnxruntime

    return onnxruntime


register(
    Runtime(
        "onnxruntime",
        ("onnx",),
        "none",
        OnnxRuntimeSession,
        packages=("onnxruntime",),
        extra="onnx",
        options=(_OPTIMIZATION, _PRECISION),
        rounds_by_isa=True,
        imported=imported,
        executed=executed,
        profile=profiled,
    )
)
