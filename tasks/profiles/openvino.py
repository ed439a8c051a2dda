"""Profiles by OpenVINO's performance counters: the time of each operator of the model that it has compiled."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.profiles.rounds import Rounds, chosen, rounds, times_ms
from tasks.quantize.layer_names import layer_of
from tasks.quantize.openvino_graph import KERNELS, element_type, layer_of_operation
from tasks.runtimes.openvino import (
    ExecutedKernel,
    OpenVINOSession,
    compiled_for_cpu,
    executed_kernels,
    opened,
    runtime_fact,
)
from tasks.types import OperatorTime, Profile, RuntimeSettings

_WARM_UP = 2
"""Inferences of a newly compiled model that are not counted: the first one is several times as slow."""

_BLOCK = 16
"""Inferences counted of each compiled model. Averages of whole microseconds leave 0.6 us of doubt in theirs."""

_CONVERSIONS = frozenset(("Convert", "FakeQuantize", "Reorder", "Transpose"))

_SUBGRAPH = "Subgraph"
"""Element-wise operators compiled into one loop."""

_COMPUTING = frozenset(("Clamp", "Minimum", "Relu", "Sigmoid"))
"""Element-wise operators of detectors; all others in a subgraph quantize, dequantize or shift zero points."""

_SLOW = frozenset(("ref", "simple"))
"""Words in the names of primitives that were written to be read."""


@dataclass(frozen=True)
class _Stored:
    """A convolution of the graph, before OpenVINO has compiled it."""

    name: str
    layer: str | None
    has_integers: bool
    """Whether its weights are stored as integers."""

    macs: int


@dataclass(frozen=True)
class _Place:
    """An executed convolution, and that of the graph which it is."""

    executed: ExecutedKernel
    stored: _Stored | None

    @property
    def layer(self) -> str | None:
        """Canonical name of its layer, if it is known."""
        return self.stored.layer if self.stored else None


def profile(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Times the operators of a compiled model: see `Runtime.profile`.

    Args:
        data: Content of an .onnx file or of an OpenVINO archive.
        settings: Number of threads and inference precision.
        pixels: (N, S, S, 3) uint8 RGB, at least one image.
        seconds: Time to spend, about.

    Returns:
        One operator for each that is executed: what is fused into another one takes no time of its own.

    Raises:
        ArtifactUnreadable: If the content is not a model of a detector that OpenVINO can compile.
        InferenceFailed: If OpenVINO fails.
    """
    model, plain = opened(data), OpenVINOSession(data, settings)
    inputs = [plain.prepare(image[None]) for image in pixels]
    times_ms(plain.infer, chosen(inputs, 0, _WARM_UP))
    times, times_us, executed = Rounds(), list[list[float]](), set[int]()
    # The counters are averages since compilation, so each block of inferences is of a model of its own.
    for index in rounds(seconds):
        block = chosen(inputs, index * _BLOCK, _BLOCK)
        plain_ms = times_ms(plain.infer, block)
        compiled = compiled_for_cpu(model, settings, PERF_COUNT=True)
        request = compiled.create_infer_request()
        times_ms(request.infer, chosen(inputs, 0, _WARM_UP))
        before = _totals_us(request, _WARM_UP)
        times.add(plain_ms, times_ms(request.infer, block))
        after = _totals_us(request, _WARM_UP + _BLOCK)
        # Durations, too, are cut to whole microseconds: half of one is missing.
        times_us.append([max(last - first, 0) / _BLOCK + 0.5 for first, last in zip(before, after, strict=True)])
        executed |= {place for place, total in enumerate(after) if total}
    plain.close()
    medians_us = np.median(times_us, axis=0)
    return Profile(
        operators=_operators(model, compiled, request.get_profiling_info(), medians_us / 1e3, executed),
        total_ms=times.total_ms,
        repeats=_BLOCK * len(times_us),
        method=(
            f"OpenVINO's performance counters, medians of {len(times_us)} averages over {_BLOCK} inferences, each of a "
            f"newly compiled model, in whole microseconds; {times.cost}"
        ),
    )


def _totals_us(request: Any, inferences: int) -> list[float]:
    """Reads the time that each operator has taken since the model was compiled, in us."""
    averages = [item.real_time.total_seconds() * 1e6 for item in request.get_profiling_info()]
    # The average is rounded down: the total is up to `inferences - 1` more than this product.
    return [average * inferences + (inferences - 1) / 2 if average else 0.0 for average in averages]


def _operators(
    model: Any, compiled: Any, infos: Sequence[Any], times_ms: np.ndarray, executed: set[int]
) -> tuple[OperatorTime, ...]:
    types = {item.get_friendly_name(): item.get_type_name() for item in model.get_ops()}
    nodes = {item.get_friendly_name(): item for item in compiled.get_runtime_model().get_ordered_ops()}
    places = _places(_stored(model), executed_kernels(compiled))
    layers = sorted({place.layer for place in places.values() if place.layer})
    seen, found = Counter[str](), []
    for index, info in enumerate(infos):
        # A convolution of less than a microsecond has been executed, too.
        if info.node_name not in nodes or not (index in executed or info.node_name in places):
            continue
        seen[info.node_name] += 1
        mark = f" {seen[info.node_name]}" if seen[info.node_name] > 1 else ""
        name, node, time_ms = info.node_name + mark, nodes[info.node_name], float(times_ms[index])
        if info.node_name in places:
            found.append(_convolution(name, info, places[info.node_name], time_ms))
        else:
            found.append(_other(name, info, node, types, layers, time_ms))
    return tuple(found)


def _convolution(name: str, info: Any, place: _Place, time_ms: float) -> OperatorTime:
    arithmetic = place.executed.arithmetic
    is_widened = place.stored is not None and place.stored.has_integers and "float" in arithmetic
    return OperatorTime(
        name=name,
        operator=info.node_type,
        role="convolution",
        layer=place.layer,
        arithmetic=arithmetic,
        kernel=info.exec_type,
        macs=place.executed.macs,
        time_ms=time_ms,
        is_fallback=is_widened or not _SLOW.isdisjoint(info.exec_type.split("_")),
    )


def _other(
    name: str, info: Any, node: Any, types: dict[str, str], layers: Sequence[str], time_ms: float
) -> OperatorTime:
    fused = {types.get(item, "") for item in runtime_fact(node, "originalLayersNames").split(",")}
    is_conversion = info.node_type in _CONVERSIONS or (info.node_type == _SUBGRAPH and _COMPUTING.isdisjoint(fused))
    return OperatorTime(
        name=name,
        operator=info.node_type,
        role="conversion" if is_conversion else "other",
        # What is put in beside a convolution is named after it: NAME_QuantizeLinear, NAME/WithoutBiases_abcd_acdb_...
        layer=next((layer for layer in layers if info.node_name.startswith(layer)), None),
        arithmetic=element_type(node.output(0)) if node.get_output_size() else "",
        kernel=info.exec_type,
        macs=0,
        time_ms=time_ms,
        is_fallback=False,
    )


def _stored(model: Any) -> list[_Stored]:
    return [_stored_kernel(item) for item in model.get_ordered_ops() if item.get_type_name() in KERNELS]


def _stored_kernel(operation: Any) -> _Stored:
    source = operation.input_value(1).get_node()
    # What widens and scales integers has them as its first input.
    while source.get_input_size():
        source = source.input_value(0).get_node()
    return _Stored(
        name=str(operation.get_friendly_name()),
        layer=layer_of_operation(operation),
        has_integers="int" in element_type(source.output(0)),
        # Each weight is used once at each place of the output, grouped or not.
        macs=math.prod(operation.input(1).get_shape()) * math.prod(list(operation.output(0).get_shape())[2:]),
    )


def _places(stored: Sequence[_Stored], executed: Sequence[ExecutedKernel]) -> dict[str, _Place]:
    """Finds the convolution of the graph that each executed one is, by the name of the node."""
    left, found = list(stored), dict[str, _Place]()
    # What takes the place of a convolution may have a name of its own: then as many multiply-accumulates must do.
    for is_same in (_has_its_name, lambda kernel, item: kernel.macs == item.macs):
        for kernel in executed:
            match = next((item for item in left if is_same(kernel, item)), None)
            if match is not None and kernel.node not in found:
                found[kernel.node] = _Place(kernel, match)
                left.remove(match)
    return {kernel.node: found.get(kernel.node, _Place(kernel, None)) for kernel in executed}


def _has_its_name(executed: ExecutedKernel, stored: _Stored) -> bool:
    fused = layer_of(";".join(executed.names))
    return stored.name in executed.names or (fused is not None and fused == stored.layer)
