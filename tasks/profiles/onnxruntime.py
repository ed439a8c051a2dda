"""Profiles by ONNX Runtime's own profiler: the time of each node of the graph that it has rewritten."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable
from tasks.profiles.rounds import Rounds, chosen, rounds, times_ms
from tasks.quantize.onnx_graph import Convolution, Graph
from tasks.runtimes.onnxruntime import OnnxRuntimeSession, arithmetic_of, convolved_layer
from tasks.types import OperatorTime, Profile, RuntimeSettings

_WARM_UP = 3
"""Inferences that are not counted: the first ones allocate."""

_BLOCK = 5
"""Inferences of one session before it is the other one's turn."""

_MOST_ROUNDS = 60
"""The profiler's file grows by 50 to 250 kB with each inference."""

_CONVERSIONS = frozenset(
    (
        "Cast",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QuantizeLinear",
        "ReorderInput",
        "ReorderOutput",
        "Transpose",
    )
)

_ELEMENT_TYPES = {"float": "float32", "double": "float64"}
"""Words of `Audit` by ONNX Runtime's, where they are not the same."""

_TIMED = "_kernel_time"
"""What follows the name of a node in the name of its event."""


def profile(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Times the nodes of a graph: see `Runtime.profile`.

    Args:
        data: Content of a .onnx file.
        settings: Number of threads and options.
        pixels: (N, S, S, 3) uint8 RGB, at least one image.
        seconds: Time to spend, about.

    Returns:
        One operator for each node that is executed.

    Raises:
        ArtifactUnreadable: If the content is not a graph that ONNX Runtime can load, or its layers cannot be told.
        InferenceFailed: If ONNX Runtime fails.
    """
    layers = {item.layer: item for item in Graph(data).convolutions() if item.layer is not None}
    with tempfile.TemporaryDirectory(prefix="quantsweep-profile-") as folder:
        # Two sessions, since profiling is for the whole life of one.
        plain = OnnxRuntimeSession(data, settings)
        watched = OnnxRuntimeSession(data, settings, enable_profiling=True, profile_file_prefix=f"{folder}/events")
        inputs = [plain.prepare(image[None]) for image in pixels]
        times_ms(plain.infer, chosen(inputs, 0, _WARM_UP))
        times_ms(watched.infer, chosen(inputs, 0, _WARM_UP))
        times = Rounds()
        for index in rounds(seconds, _MOST_ROUNDS):
            block = chosen(inputs, index * _BLOCK, _BLOCK)
            times.add(times_ms(plain.infer, block), times_ms(watched.infer, block))
        runs = _runs(watched.end_profiling())[_WARM_UP:]
        for session in (plain, watched):
            session.close()
    return Profile(
        operators=_operators(runs, layers),
        total_ms=times.total_ms,
        repeats=len(runs),
        method=(
            f"ONNX Runtime's profiler, which times each node of the rewritten graph in whole microseconds; {times.cost}"
        ),
    )


def _runs(path: Path) -> list[list[dict[str, Any]]]:
    """Reads the events of the nodes, inference by inference, in order of execution."""
    runs: list[list[dict[str, Any]]] = [[]]
    for event in json.loads(path.read_text()):
        if event["cat"] == "Node" and event["name"].endswith(_TIMED):
            runs[-1].append(event)
        # It follows what it consists of.
        elif event["name"] == "model_run":
            runs.append([])
    return runs[:-1]


def _operators(runs: list[list[dict[str, Any]]], layers: dict[str, Convolution]) -> tuple[OperatorTime, ...]:
    times_us: dict[str, list[float]] = {}
    for run in runs:
        for event in run:
            times_us.setdefault(event["args"]["node_index"], []).append(event["dur"])
    names = Counter(event["name"] for event in runs[0])
    found = []
    for event in runs[0]:
        index = event["args"]["node_index"]
        mark = f" {index}" if names[event["name"]] > 1 else ""
        found.append(_operator(event, mark, float(np.median(times_us[index])) / 1e3, layers))
    convolved = {item.layer for item in found if item.role == "convolution"}
    if convolved != set(layers):
        raise ArtifactUnreadable("the optimized graph has lost the names of layers")
    return tuple(found)


def _operator(event: dict[str, Any], mark: str, time_ms: float, layers: dict[str, Convolution]) -> OperatorTime:
    name, kind = event["name"].removesuffix(_TIMED), event["args"]["op_name"]
    layer = convolved_layer(kind, name)
    provider = event["args"]["provider"].removesuffix("ExecutionProvider")
    if layer in layers:
        arithmetic = arithmetic_of(kind)
        return OperatorTime(
            name=name + mark,
            operator=kind,
            role="convolution",
            layer=layer,
            arithmetic=arithmetic,
            # Microsoft's own library has all of the CPU's convolutions; NCHWc is its blocked layout.
            kernel=f"{'MLAS' if provider == 'CPU' else provider} {'NCHWc ' if '_nchwc' in name else ''}{kind}",
            macs=layers[layer].macs,
            time_ms=time_ms,
            is_fallback=arithmetic == "float32" and not layers[layer].stored.startswith("float"),
        )
    return OperatorTime(
        name=name + mark,
        operator=kind,
        role="conversion" if kind in _CONVERSIONS else "other",
        # Nodes beside a convolution are named after it: NAME_QuantizeLinear, NAME/Reshape, NAME.weight_...
        layer=next((layer for layer in layers if name.startswith(layer)), None),
        arithmetic=_output_type(event),
        kernel=f"{provider} {kind}",
        macs=0,
        time_ms=time_ms,
        is_fallback=False,
    )


def _output_type(event: dict[str, Any]) -> str:
    outputs = event["args"].get("output_type_shape") or [{"nothing": []}]
    name = str(next(iter(outputs[0])))
    return _ELEMENT_TYPES.get(name, name)
