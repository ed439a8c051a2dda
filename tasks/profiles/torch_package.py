"""Profiles of compiled packages: oneDNN's kernels by its own account, and all the rest as one operator.

The loops that inductor generates are not visible in a package unless it was compiled with marks for profilers.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import InferenceFailed
from tasks.profiles.rounds import Rounds, chosen, rounds, times_ms
from tasks.profiles.torch_onednn import Primitive, watched
from tasks.quantize.formats.pt2 import lowered, read_package
from tasks.runtimes.torch import TorchSession
from tasks.types import OperatorTime, Profile, RuntimeSettings

_WARM_UP = 3
"""Inferences that are not counted: the first ones create oneDNN's primitives."""

_BLOCK = 10
"""Inferences with, and without, oneDNN's account before it is the other one's turn."""

GENERATED = "generated code"
"""Name of the time that no primitive of oneDNN explains."""

_INTEGERS = ("int8", "uint8")


@dataclass(frozen=True)
class Promised:
    """A convolution of the exported program."""

    name: str
    """Canonical name of the layer."""

    macs: int
    """Multiply-accumulates of one inference."""

    elements: int
    """Number of weights."""

    arithmetic: str
    """What it is to be computed in, in the words of `Audit.mac_share`."""

    stored: str
    """Element type of the weights in the exported program."""


def profile_package(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Times the kernels that a package calls: see `Runtime.profile`.

    Args:
        data: Content of a .pt2 file.
        settings: Number of threads.
        pixels: (N, S, S, 3) uint8 RGB, at least one image.
        seconds: Time to spend, about.

    Returns:
        One operator for each primitive that oneDNN executes, and `GENERATED`: the loops that inductor generated for
        padding, quantization, concatenation and the sigmoid, and the calls themselves.

    Raises:
        ArtifactUnreadable: If the content is no package of ours, or one for another CPU.
        InferenceFailed: If torch fails, or its oneDNN does not tell.
    """
    session = TorchSession(data, settings)
    inputs = [session.prepare(image[None]) for image in pixels]
    times_ms(session.infer, chosen(inputs, 0, _WARM_UP))
    times, runs, rests_ms = Rounds(), list[list[Primitive]](), list[float]()
    for index in rounds(seconds):
        block = chosen(inputs, index * _BLOCK, _BLOCK)
        plain_ms = times_ms(session.infer, block)
        with watched() as found:
            watched_ms = times_ms(session.infer, block)
        times.add(plain_ms, watched_ms)
        runs += _runs(found)
        pairs = zip(watched_ms, runs[-_BLOCK:], strict=True)
        rests_ms += [whole_ms - sum(item.time_ms for item in run) for whole_ms, run in pairs]
    session.close()
    operators = tuple(_operators(runs, _layers(data)))
    rest_ms = float(np.median(rests_ms)) - times.overhead_ms
    return Profile(
        operators=(*operators, _rest(rest_ms)) if rest_ms > 0 else operators,
        total_ms=times.total_ms,
        repeats=len(runs),
        method=(
            f"oneDNN's verbose mode; {times.cost}, which is taken off `{GENERATED}`: what oneDNN's kernels leave of an "
            "inference, for loops that inductor generated and for what torch does around each kernel"
        ),
    )


def _runs(found: list[Primitive]) -> list[list[Primitive]]:
    """Cuts the primitives of a block into inferences, all of which execute the same ones."""
    size, left = divmod(len(found), _BLOCK)
    runs = [found[start : start + size] for start in range(0, size * _BLOCK, size or 1)]
    if (
        left
        or not size
        or not all(one.is_again(other) for run in runs for one, other in zip(run, runs[0], strict=True))
    ):
        raise InferenceFailed(f"oneDNN tells of {len(found)} primitives that are not {_BLOCK} times the same ones")
    return runs


def _layers(data: bytes) -> list[Promised]:
    """Lists the convolutions in the order in which the generated code calls their kernels, as far as it is known.

    Calls in half precision have lost their names, but for the heads: what is left is a chain, in the program's order.
    """
    package = read_package(data)
    program = {item["layer"]: item for item in package.description["program"]["convolutions"]}
    order = [*(name for name in lowered(package) if name in program), *program]
    return [_layer(program[name]) for name in dict.fromkeys(order)]


def _layer(item: dict[str, Any]) -> Promised:
    return Promised(item["layer"], item["macs"], item["elements"], item["arithmetic"], item["stored"])


def _operators(runs: Sequence[Sequence[Primitive]], layers: Sequence[Promised]) -> Iterator[OperatorTime]:
    seen = Counter[str]()
    medians_ms = np.median([[item.time_ms for item in run] for run in runs], axis=0).tolist()
    for primitive, layer, time_ms in zip(runs[0], matched(runs[0], layers), medians_ms, strict=True):
        is_convolution = primitive.kind == "convolution"
        name = primitive.kind if layer is None else layer.name if is_convolution else f"{layer.name}/{primitive.kind}"
        seen[name] += 1
        yield OperatorTime(
            name=f"{name} {seen[name]}" if seen[name] > 1 else name,
            operator=primitive.kind,
            role="convolution" if is_convolution else "conversion" if primitive.kind == "reorder" else "other",
            layer=layer.name if layer else None,
            arithmetic=_arithmetic(primitive, layer) if is_convolution else primitive.types.get("dst", ""),
            kernel=primitive.implementation,
            macs=primitive.macs,
            time_ms=time_ms,
            is_fallback=_is_fallback(primitive, layer),
        )


def matched(run: Sequence[Primitive], layers: Sequence[Promised]) -> list[Promised | None]:
    """Finds the layer that each primitive works for.

    Args:
        run: Primitives of one inference, in order of execution.
        layers: Convolutions of the exported program, those that oneDNN does not execute, too; those of equal sizes in
            order of execution.

    Returns:
        For each primitive its layer; None if it has none: it is no convolution, nor a reorder for one.
    """
    found: list[Promised | None] = [None] * len(run)
    left = list(layers)
    for index, primitive in enumerate(run):
        sizes = primitive.macs, primitive.elements
        found[index] = next((item for item in left if (item.macs, item.elements) == sizes), None)
        left = [item for item in left if item is not found[index]]
    for index in reversed(range(len(run) - 1)):
        # It is done for the convolution that follows.
        if run[index].kind == "reorder":
            found[index] = found[index + 1]
    return found


def _arithmetic(primitive: Primitive, layer: Promised | None) -> str:
    executed = primitive.types.get("wei", "")
    return layer.arithmetic if layer and executed in _INTEGERS and layer.arithmetic.endswith("int8") else executed


def _is_fallback(primitive: Primitive, layer: Promised | None) -> bool:
    if primitive.kind != "convolution":
        return False
    is_widened = layer is not None and layer.stored in _INTEGERS and primitive.types.get("wei") not in _INTEGERS
    return is_widened or primitive.implementation.startswith("ref")


def _rest(time_ms: float) -> OperatorTime:
    return OperatorTime(GENERATED, GENERATED, "other", None, "float32", "inductor", 0, time_ms, False)
