"""Audit: what an artifact really holds, against what its scheme promises."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from tasks.errors import AuditMismatch
from tasks.quantize.flatbuffer import element_type, operator_name, read, text, whole
from tasks.quantize.kernels import Kernel, faults, kernels
from tasks.quantize.schemes import DynamicInt8, Float16, Float32, Scheme, StaticInt8
from tasks.types import Audit

SMALL_KERNEL = 1024
"""TFLiteConverter's dynamic quantization leaves kernels with fewer elements in float: the default of
`minimum_elements_for_weights` in tensorflow/compiler/mlir/lite/quantization/lite/quantize_model.h."""

FLOAT32_SMALL = "float32_small"
"""Arithmetic of a kernel below `SMALL_KERNEL` that was left in float beside quantized ones."""


def audit(data: bytes) -> Audit:
    """Reads an artifact back, without running it.

    Args:
        data: Content of a .tflite file.

    Returns:
        What it holds.

    Raises:
        ArtifactUnreadable: If the content is not a whole .tflite file.
        AuditMismatch: If some of its kernels are wrong whatever the scheme: biases that do not fit 32 bits, scales
            that are missing.
    """
    model = read(data)
    with whole():
        broken = faults(model)
        found = _audit(model)
    if broken:
        raise AuditMismatch(f"the artifact cannot work: {'; '.join(broken)}")
    return found


def _audit(model: Any) -> Audit:
    graph, found = model.subgraphs[0], kernels(model)
    any_quantized = any(_is_quantized(kernel) for kernel in found)
    macs, weights = Counter[str](), Counter[str]()
    for kernel in found:
        macs[_arithmetic(kernel, any_quantized)] += kernel.macs
        weights[element_type(kernel.weights)] += kernel.elements
    granularities = {kernel.granularity for kernel in found} - {None}
    return Audit(
        mac_share=_shares(macs),
        weight_share=_shares(weights),
        granularity="mixed" if len(granularities) > 1 else next(iter(granularities), None),
        operators=dict(sorted(Counter(operator_name(model, operator) for operator in graph.operators).items())),
        macs=macs.total(),
        input_type=element_type(graph.tensors[int(graph.inputs[0])]),
        output_types={role: element_type(graph.tensors[index]) for role, index in output_roles(model).items()},
    )


def output_roles(model: Any) -> dict[str, int]:
    """Tells the outputs apart.

    Args:
        model: The `ModelT` object of a .tflite file.

    Returns:
        Tensor index by role, from the signature; without a signature, the output with 4 columns is `boxes`, the
        other is `scores`.
    """
    signatures = model.signatureDefs or []
    if signatures:
        return {text(entry.name): int(entry.tensorIndex) for entry in signatures[0].outputs}
    graph = model.subgraphs[0]
    columns = {int(index): int(graph.tensors[int(index)].shape[-1]) for index in graph.outputs}
    return {"boxes" if count == 4 else "scores": index for index, count in sorted(columns.items())}


def _is_quantized(kernel: Kernel) -> bool:
    return not element_type(kernel.weights).startswith("float")


def _arithmetic(kernel: Kernel, any_quantized: bool) -> str:
    if any_quantized and kernel.arithmetic == "float32" and kernel.elements < SMALL_KERNEL:
        return FLOAT32_SMALL
    return kernel.arithmetic


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()} if total else {}


def check_audit(found: Audit, scheme: Scheme) -> None:
    """Refuses an artifact that does not hold what its scheme promises.

    Args:
        found: What the artifact holds.
        scheme: How it was to be made.

    Raises:
        AuditMismatch: If it holds something else; the message names all differences.
    """
    differences = _EXPECTATIONS[type(scheme)](found, scheme)
    if found.input_type != "float32":
        differences.append(f"the input is {found.input_type}, not float32")
    if set(found.output_types) != {"boxes", "scores"}:
        differences.append(f"the outputs are {sorted(found.output_types)}, not boxes and scores")
    differences += [f"{role} is {kind}, not float32" for role, kind in found.output_types.items() if kind != "float32"]
    if differences:
        raise AuditMismatch(f"the artifact is not {scheme.name}: {'; '.join(differences)}")


def _float32(found: Audit, scheme: Any) -> list[str]:
    return _only(found.mac_share, "multiply-accumulates", "float32") + _only(found.weight_share, "weights", "float32")


def _float16(found: Audit, scheme: Any) -> list[str]:
    return _only(found.mac_share, "multiply-accumulates", "float16") + _only(found.weight_share, "weights", "float16")


def _dynamic_int8(found: Audit, scheme: Any) -> list[str]:
    # The small kernels are the price of this toolchain and stand in the audit; anything else in float is a mismatch.
    allowed = ("dynamic_int8", FLOAT32_SMALL) if scheme.toolchain == "converter" else ("dynamic_int8",)
    differences = _only(found.mac_share, "multiply-accumulates", *allowed)
    if found.mac_share.get("dynamic_int8", 0.0) == 0.0:
        differences.append("no kernel is dynamic_int8")
    return differences + _granularity(found, scheme.granularity)


def _static_int8(found: Audit, scheme: Any) -> list[str]:
    return (
        _only(found.mac_share, "multiply-accumulates", "int8")
        + _only(found.weight_share, "weights", "int8")
        + _granularity(found, scheme.granularity)
    )


_EXPECTATIONS: dict[type[Scheme], Callable[[Audit, Any], list[str]]] = {
    Float32: _float32,
    Float16: _float16,
    DynamicInt8: _dynamic_int8,
    StaticInt8: _static_int8,
}
"""What differs from the promise, by scheme type."""


def _only(shares: dict[str, float], what: str, *allowed: str) -> list[str]:
    others = {name: share for name, share in shares.items() if name not in allowed}
    if not shares:
        return [f"it has no {what}"]
    return [f"{share:.2%} of its {what} are {name}, not {allowed[0]}" for name, share in others.items()]


def _granularity(found: Audit, wanted: str) -> list[str]:
    # None: each kernel has one output channel, where both granularities are the same thing.
    return [] if found.granularity in (wanted, None) else [f"its granularity is {found.granularity}, not {wanted}"]
