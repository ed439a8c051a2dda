"""LiteRT: the time of each operator, from its own profiler, or else from prefixes of the graph."""

import time
from itertools import cycle

import numpy as np

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.profiles.litert_library import Execution, ProfiledModel, is_available
from tasks.profiles.litert_matching import executed
from tasks.profiles.litert_operators import Operator, delegated, execution_order, operators_of
from tasks.profiles.litert_prefixes import prefix_times
from tasks.quantize.flatbuffer import read
from tasks.runtimes.litert import LiteRTSession
from tasks.types import Profile, RuntimeSettings

PROFILER = (
    "LiteRT's own profiler, in turn with inferences that are not profiled: means over the middle half of the"
    " inferences; copying the input is not in the operators' times"
)
PREFIXES = (
    "prefixes of the graph that end one operator apart, in random order in each pass: medians of the differences,"
    " made not to be negative (isotonic regression) and to add up to the whole graph"
)

_MIN_ROUNDS = 3
_BLOCK_SECONDS = 0.05
"""Time that the profiled and the other session run before the other has its turn."""


def profile(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Times each operator of an artifact.

    Args:
        data: Content of a .tflite file.
        settings: How it is run.
        pixels: (N, S, S, 3) uint8 RGB, at least one image.
        seconds: Time to spend, about; slow artifacts take longer.

    Returns:
        Its operators in order of execution. Their times are as they were measured; what is missing to `total_ms` goes
        into copying the input and from one operator to the next.

    Raises:
        ArtifactUnreadable: If LiteRT cannot load it.
        InferenceFailed: If LiteRT fails.
    """
    session = LiteRTSession(data, settings)
    prepared = [session.prepare(pixels[index : index + 1]) for index in range(len(pixels))]
    operators = operators_of(data)
    try:
        if is_available():
            return _profiled(data, session, prepared, operators, settings.threads, seconds)
        return _by_prefixes(data, prepared[0], operators, settings.threads, seconds)
    finally:
        session.close()


def _profiled(
    data: bytes,
    session: LiteRTSession,
    prepared: list[np.ndarray],
    operators: tuple[Operator, ...],
    threads: int,
    seconds: float,
) -> Profile:
    end, whole, single = time.monotonic() + seconds, [], []
    images = cycle(prepared)
    with ProfiledModel(data, threads) as model:
        first = model.run(prepared[0])
        _seconds(session, prepared[0])
        block = max(int(_BLOCK_SECONDS / _seconds(session, prepared[0])), 1)
        rounds = 0
        while rounds < _MIN_ROUNDS or time.monotonic() < end:
            # The first of a block finds the other session's weights in the caches.
            skipped = min(block - 1, 1)
            whole += [_seconds(session, next(images)) for _ in range(block)][skipped:]
            single += [_times_ms(model.run(next(images)), first) for _ in range(block)][skipped:]
            rounds += 1
    builtin = {item.index for item in first if item.index is not None}
    found = executed(first, typical(np.array(single)), operators, execution_order(read(data), builtin))
    return Profile(found, float(np.median(whole)) * 1e3, len(single), PROFILER)


def typical(times_ms: np.ndarray) -> list[float]:
    """Returns the time of each operator in inferences that are neither fast nor slow.

    Medians of operators do not add up to the median inference, since what disturbs one rarely disturbs another: over 66
    operators a tenth of the time went missing on a busy machine. Means over the same inferences do add up.

    Args:
        times_ms: (N, operators) milliseconds in N inferences.

    Returns:
        The mean of each operator over the middle half of the inferences, by their sums.
    """
    order = np.argsort(times_ms.sum(axis=1), kind="stable")
    outside = len(order) // 4
    return times_ms[order[outside : len(order) - outside]].mean(axis=0).tolist()


def _by_prefixes(
    data: bytes, prepared: np.ndarray, operators: tuple[Operator, ...], threads: int, seconds: float
) -> Profile:
    found = prefix_times(data, prepared, threads, seconds)
    inside = delegated_operators(data, threads)
    rows = tuple(
        operators[place].timed(time_ms, "XNNPACK" if place in inside else "builtin")
        for place, time_ms in found.times_ms.items()
    )
    return Profile(rows, found.total_ms, found.passes, PREFIXES)


def delegated_operators(data: bytes, threads: int = 1) -> set[int]:
    """Finds the operators that XNNPACK executes.

    Args:
        data: Content of a .tflite file.
        threads: Number of threads.

    Returns:
        Their places in the file.

    Raises:
        ArtifactUnreadable: If LiteRT cannot load it.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ArtifactUnreadable(f"LiteRT cannot load the artifact: {error}") from error
    return delegated(read(data), interpreter._get_ops_details())


def _seconds(session: LiteRTSession, prepared: np.ndarray) -> float:
    start = time.perf_counter()
    session.infer(prepared)
    return time.perf_counter() - start


def _times_ms(executions: tuple[Execution, ...], first: tuple[Execution, ...]) -> list[float]:
    if [item.name for item in executions] != [item.name for item in first]:
        raise InferenceFailed("LiteRT executed other operators in one inference than in another")
    return [item.time_ms for item in executions]
