"""Prefixes: operator times without a profiler, as differences between graphs that end one operator apart."""

import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.profiles.litert_operators import constants
from tasks.quantize.flatbuffer import read, whole, write

_MIN_PASSES = 2
_MAX_PASSES = 100
_BLOCK = 3
"""Inferences of a prefix in one pass after a first one that is not counted; their median is taken."""

_SLOW_SECONDS = 0.1
"""An inference that takes longer is the last of its prefix in that pass, even the first one."""


@dataclass(frozen=True)
class PrefixTimes:
    """Times of the operators of a graph by differences."""

    times_ms: dict[int, float]
    """Milliseconds of each operator that was cut after, by its place in the file; none negative."""

    total_ms: float
    """Milliseconds of the whole graph, which the times add up to."""

    passes: int
    """Times that each prefix was timed."""


def cut(data: bytes, count: int) -> bytes:
    """Ends a graph after some operators.

    Its outputs are the tensors made so far that the rest of the graph, or its caller, still wants. So nothing that the
    whole graph computes up to there can be left out.

    Args:
        data: Content of a .tflite file.
        count: Operators to keep, at least 1.

    Returns:
        Content of the shorter file, without weights that it does not use.

    Raises:
        ArtifactUnreadable: If the content is not a whole .tflite file.
    """
    model = read(data)
    with whole():
        graph, fixed = model.subgraphs[0], constants(model)
        kept, rest = graph.operators[:count], graph.operators[count:]
        made = [int(index) for operator in kept for index in operator.outputs]
        if rest:
            wanted = {int(index) for operator in rest for index in operator.inputs} | set(map(int, graph.outputs))
            graph.outputs = np.array([index for index in made if index in wanted - fixed], np.int32)
        graph.operators, model.signatureDefs = kept, []
        used = {int(index) for operator in kept for index in operator.inputs if index >= 0}
        buffers = {graph.tensors[index].buffer for index in used}
        for place, buffer in enumerate(model.buffers):
            buffer.data = buffer.data if place in buffers else None
        for index in set(range(len(graph.tensors))) - used - set(made):
            graph.tensors[index].buffer = 0
    return write(model)


def prefix_times(data: bytes, prepared: np.ndarray, threads: int, seconds: float) -> PrefixTimes:
    """Times the operators of a graph.

    All prefixes are timed once a pass, in an order that is drawn anew for each, so that a drift of the machine falls
    on all alike. Of neighbouring prefixes the difference is taken within each pass, and the median over passes.
    Adding them up gives a curve that noise makes fall here and there; the nearest curve that does not fall (isotonic
    regression by pooling adjacent violators; Ayer et al., Annals of Mathematical Statistics 26, 1955) takes its place,
    scaled so that it ends at the time of the whole graph.

    A difference is not quite an operator's time within the graph: the prefix hands out tensors that stay inside the
    delegate of the whole graph.

    Args:
        data: Content of a .tflite file.
        prepared: Its input, in its shape and element type.
        threads: Number of threads.
        seconds: Time to spend, about; there are two passes at least.

    Returns:
        The times.

    Raises:
        ArtifactUnreadable: If LiteRT cannot load a prefix.
        InferenceFailed: If LiteRT fails.
    """
    start, draw = time.monotonic(), random.Random(0)
    places = cuts(read(data))
    prefixes = [cut(data, place + 1) for place in places]
    passes: list[list[float]] = []
    longest = 0.0
    while len(passes) < _MIN_PASSES or (
        time.monotonic() - start + longest < seconds and len(passes) < _MAX_PASSES
    ):  # fmt: skip
        began = time.monotonic()
        order = draw.sample(range(len(prefixes)), len(prefixes))
        timed = {index: _timed_ms(prefixes[index], prepared, threads) for index in order}
        passes.append([timed[index] for index in range(len(prefixes))])
        longest = max(longest, time.monotonic() - began)
    curves = np.array(passes)
    total = float(np.median(curves[:, -1]))
    rising = isotonic(np.cumsum(np.median(np.diff(curves, axis=1, prepend=0), axis=0)))
    steps = np.diff(rising, prepend=0) * (total / rising[-1])
    return PrefixTimes(dict(zip(places, steps.tolist(), strict=True)), total, len(passes))


def cuts(model: Any) -> tuple[int, ...]:
    """Returns the places of the operators that a graph is cut after: all but those that work on constants only."""
    fixed = constants(model)
    operators = model.subgraphs[0].operators
    return tuple(place for place, operator in enumerate(operators) if int(operator.outputs[0]) not in fixed)


def isotonic(values: np.ndarray) -> np.ndarray:
    """Finds the nearest sequence that starts at 0 or above and never falls, in the sum of squares.

    Args:
        values: (N,) numbers.

    Returns:
        (N,) float64.
    """
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, size = value, 1
        while blocks and blocks[-1][0] > mean:
            before, count = blocks.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    return np.maximum(np.repeat([mean for mean, _ in blocks], [size for _, size in blocks]), 0)


def _timed_ms(data: bytes, prepared: np.ndarray, threads: int) -> float:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ArtifactUnreadable(f"LiteRT cannot load a prefix of the artifact: {error}") from error
    times: list[float] = []
    try:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], prepared)
        for _ in range(_BLOCK + 1):
            start = time.perf_counter()
            interpreter.invoke()
            times.append(time.perf_counter() - start)
            if times[-1] > _SLOW_SECONDS:
                break
    except (ValueError, RuntimeError) as error:
        raise InferenceFailed(f"LiteRT failed: {error}") from error
    return float(np.median(times[1:] or times) * 1e3)
