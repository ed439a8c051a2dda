"""Profiles of modules by torch's profiler: the time of each operator that Python calls."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.profiles.rounds import Rounds, chosen, rounds, times_ms
from tasks.runtimes.torch import TorchSession, opened
from tasks.types import OperatorTime, Profile, RuntimeSettings

_WARM_UP = 3
"""Inferences that are not counted."""

_BLOCK = 5
"""Inferences with, and without, the profiler before it is the other one's turn."""

_INFERENCE = "inference"
"""Name of the range that an inference is in the profiler's account."""

PYTHON = "Python"
"""Name of the time between the operators."""

_VIEWS = ("aten::to", "aten::permute", "aten::reshape")
"""Operators that change types or memory layouts."""

_Run = list[tuple[str | None, Any]]
"""(layer, event) of each operator of an inference, in order."""


def profile_module(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Times the operators of a module: see `Runtime.profile`.

    Args:
        data: Content of a .torch.safetensors file.
        settings: Number of threads.
        pixels: (N, S, S, 3) uint8 RGB, at least one image.
        seconds: Time to spend, about.

    Returns:
        One operator for each that the module calls, and `PYTHON`: what is left of whole inferences, if anything is.

    Raises:
        ArtifactUnreadable: If the content is not a detector, or has no memory layout that torch has.
        InferenceFailed: If torch fails.
    """
    table = {layer.name: layer for layer in layers(opened(data)[0].spec)}
    session = TorchSession(data, settings)
    inputs = [session.prepare(image[None]) for image in pixels]
    times_ms(session.infer, chosen(inputs, 0, _WARM_UP))
    times, each_ms, rests_ms = Rounds(), list[list[float]](), list[float]()
    for index in rounds(seconds):
        block = chosen(inputs, index * _BLOCK, _BLOCK)
        plain_ms = times_ms(session.infer, block)
        runs, watched_ms = _watched(session, block)
        times.add(plain_ms, watched_ms)
        found_ms = [[event.time_range.elapsed_us() / 1e3 for _, event in run] for run in runs]
        each_ms += found_ms
        rests_ms += [whole - sum(parts) for whole, parts in zip(watched_ms, found_ms, strict=True)]
    session.close()
    operators = tuple(_operators(runs[0], np.median(each_ms, axis=0).tolist(), table))
    rest_ms = float(np.median(rests_ms)) - times.overhead_ms
    rest = OperatorTime(PYTHON, PYTHON, "other", None, "float32", PYTHON, 0, rest_ms, False)
    return Profile(
        operators=(*operators, rest) if rest_ms > 0 else operators,
        total_ms=times.total_ms,
        repeats=len(each_ms),
        method=(
            f"torch.profiler, operators as Python calls them; {times.cost}, which is taken off `{PYTHON}`: what "
            "operators leave of an inference"
        ),
    )


def _watched(session: TorchSession, block: Sequence[Any]) -> tuple[list[_Run], list[float]]:
    """Runs inferences under torch's profiler; returns the operators of each, and its time in ms."""
    import torch
    from torch.profiler import ProfilerActivity, record_function

    def infer(prepared: Any) -> None:
        with record_function(_INFERENCE):
            session.infer(prepared)

    names = {name for name, _ in session.module.named_children()}
    with _named(session.module), torch.profiler.profile(activities=[ProfilerActivity.CPU]) as account:
        block_ms = times_ms(infer, block)
    inferences = [event for event in account.events() if event.name == _INFERENCE]
    return [list(_called(event, names)) for event in sorted(inferences, key=_start)], block_ms


@contextlib.contextmanager
def _named(module: Any) -> Iterator[None]:
    """Makes each layer of a module a range of its name in the profiler's account."""
    from torch.profiler import record_function

    ranges: list[Any] = []

    def enter(name: str) -> None:
        ranges.append(record_function(name))
        ranges[-1].__enter__()

    def leave(*_: Any) -> None:
        ranges.pop().__exit__(None, None, None)

    hooks = []
    for name, layer in module.named_children():
        hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        hooks.append(layer.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _called(inference: Any, names: set[str]) -> Iterator[tuple[str | None, Any]]:
    for event in sorted(inference.cpu_children, key=_start):
        if event.name in names:
            yield from ((event.name, child) for child in sorted(event.cpu_children, key=_start))
        else:
            yield None, event


def _start(event: Any) -> float:
    return float(event.time_range.start)


def _operators(run: _Run, times_ms: Sequence[float], table: dict[str, Layer]) -> Iterator[OperatorTime]:
    seen = Counter[str]()
    for (layer, event), time_ms in zip(run, times_ms, strict=True):
        is_convolution = event.name == "aten::conv2d"
        name = "/".join(filter(None, [layer, event.name]))
        seen[name] += 1
        yield OperatorTime(
            name=f"{name} {seen[name]}" if seen[name] > 1 else name,
            operator=event.name,
            role="convolution" if is_convolution else "conversion" if event.name in _VIEWS else "other",
            layer=layer,
            arithmetic="float32",
            kernel=_kernel(event),
            macs=table[layer].macs if is_convolution and layer else 0,
            time_ms=time_ms,
            is_fallback=False,
        )


def _kernel(event: Any) -> str:
    """Returns the innermost convolution that an operator calls: what executes it; else the operator itself."""
    inner = [child for child in event.cpu_children if "conv" in child.name]
    return _kernel(inner[0]) if inner and "conv" in event.name else str(event.name)
