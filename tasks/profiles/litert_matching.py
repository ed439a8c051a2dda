"""Matching: which operator of a .tflite file each execution inside XNNPACK belongs to.

XNNPACK names its operators by kind, type and microkernel only. It executes those of the file in their order, leaves out
what it can do once for all images, and puts conversions before some that quantize their activations.
"""

import re
from collections.abc import Sequence
from typing import Literal

from tasks.profiles.litert_library import Execution
from tasks.profiles.litert_operators import Operator
from tasks.types import OperatorTime

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")

_KINDS: dict[str, tuple[str, ...]] = {
    "Fully Connected": ("CONV_2D", "FULLY_CONNECTED"),
    "Convolution": _CONVOLUTIONS,
    "Deconvolution": ("TRANSPOSE_CONV",),
    "Convert": ("QUANTIZE", "DEQUANTIZE", "CAST"),
    "Static Reshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "Copy": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "Transpose": ("TRANSPOSE",),
    "Concatenate": ("CONCATENATION",),
    "Sigmoid": ("LOGISTIC",),
    "Softmax": ("SOFTMAX",),
    "Add": ("ADD",),
    "Multiply": ("MUL",),
    "Clamp": ("RELU", "RELU6"),
    "Constant Pad": ("PAD",),
    "Max Pooling": ("MAX_POOL_2D",),
    "Average Pooling": ("AVERAGE_POOL_2D",),
}
"""What XNNPACK calls (src/operators/*.c, xnn_operator_type_to_string) what LiteRT hands to it."""

_CHANGES_FORM = ("Convert", "Transpose", "Copy")

_SCALED_AT_EACH_INFERENCE = re.compile(r"\bQ[DP]U?8\b")
"""XNNPACK's names of 8-bit integers that get their scale at each inference: signed, unsigned, packed; by CPU."""


def executed(
    executions: Sequence[Execution],
    times_ms: Sequence[float],
    operators: Sequence[Operator],
    order: Sequence[int],
) -> tuple[OperatorTime, ...]:
    """Joins what was executed with what the file says about it.

    Args:
        executions: Of one inference, in order.
        times_ms: Milliseconds of each.
        operators: All of the file.
        order: Their places in order of execution.

    Returns:
        One time an execution. Those that are no operator of the file are named after the operator that they precede.
    """
    outside = {item.index for item in executions if item.index is not None}
    candidates = [operators[place] for place in order if place not in outside and not operators[place].is_constant]
    inside = [place for place, item in enumerate(executions) if item.index is None]
    kinds = [executions[place].name for place in inside]
    owners = {inside[kind]: candidates[found] for kind, found in matched(kinds, [item.operator for item in candidates])}
    rows: list[OperatorTime] = []
    for place, (item, time_ms) in enumerate(zip(executions, times_ms, strict=True)):
        if item.index is not None:
            rows.append(operators[item.index].timed(time_ms, "builtin"))
        elif place in owners:
            rows.append(owners[place].timed(time_ms, f"XNNPACK {item.name}"))
        else:
            following = next((owners[later] for later in range(place, len(executions)) if later in owners), None)
            rows.append(_extra(item, time_ms, following, place))
    return tuple(rows)


def matched(kinds: Sequence[str], operators: Sequence[str]) -> list[tuple[int, int]]:
    """Finds the longest match of two sequences that keeps the order of both.

    Args:
        kinds: What XNNPACK calls what it executes.
        operators: What the file calls its operators.

    Returns:
        Pairs of places, rising in both. What has no partner is left out.
    """
    lengths = [[0] * (len(operators) + 1) for _ in range(len(kinds) + 1)]
    for i in range(len(kinds) - 1, -1, -1):
        for j in range(len(operators) - 1, -1, -1):
            both = 1 + lengths[i + 1][j + 1] if _may_be(kinds[i], operators[j]) else 0
            lengths[i][j] = max(both, lengths[i + 1][j], lengths[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(kinds) and j < len(operators):
        if _may_be(kinds[i], operators[j]) and lengths[i][j] == 1 + lengths[i + 1][j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def _may_be(kind: str, operator: str) -> bool:
    return any(kind.startswith(word) and operator in operators for word, operators in _KINDS.items())


def _extra(item: Execution, time_ms: float, following: Operator | None, place: int) -> OperatorTime:
    role: Literal["conversion", "other"] = "conversion" if item.name.startswith(_CHANGES_FORM) else "other"
    before = f"{item.name} before {following.name}" if following else item.name
    return OperatorTime(
        name=f"{before} ({place})",
        operator=item.name.partition(" (")[0],
        role=role,
        layer=following.layer if following else None,
        arithmetic="int8"
        if _SCALED_AT_EACH_INFERENCE.search(item.name)
        else following.input_type
        if following
        else "float32",
        kernel=f"XNNPACK {item.name}",
        macs=0,
        time_ms=time_ms,
        is_fallback=False,
    )
