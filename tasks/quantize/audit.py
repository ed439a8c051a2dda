"""Audit: what an artifact really holds, against what its scheme promises."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.errors import AuditMismatch
from tasks.quantize.expectations import FLOAT32_SMALL, Expectation, codebook_limit, expectation_of
from tasks.quantize.flatbuffer import element_type, operator_name, read, text, whole
from tasks.quantize.formats.base import shares
from tasks.quantize.kernels import Kernel, faults, granularity, kernels, weights_of
from tasks.quantize.layer_names import layer_names
from tasks.quantize.schemes import Scheme
from tasks.quantize.stored_weights import codebook_size
from tasks.types import Audit

SMALL_KERNEL = 1024
"""TFLiteConverter's dynamic quantization leaves kernels with fewer elements in float: the default of
`minimum_elements_for_weights` in tensorflow/compiler/mlir/lite/quantization/lite/quantize_model.h."""

_NAMED = 3
"""How many layers a message names."""


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
    any_dynamic = any(kernel.arithmetic.startswith("dynamic_") for kernel in found)
    arithmetics = [_arithmetic(kernel, any_dynamic) for kernel in found]
    macs, weights = Counter[str](), Counter[str]()
    for kernel, arithmetic in zip(found, arithmetics, strict=True):
        macs[arithmetic] += kernel.macs
        weights[element_type(kernel.weights)] += kernel.elements
    granularities = {granularity(model, kernel) for kernel in found} - {None}
    return Audit(
        mac_share=shares(macs),
        weight_share=shares(weights),
        granularity="mixed" if len(granularities) > 1 else next(iter(granularities), None),
        operators=dict(sorted(Counter(operator_name(model, operator) for operator in graph.operators).items())),
        macs=macs.total(),
        input_type=element_type(graph.tensors[int(graph.inputs[0])]),
        output_types={role: element_type(graph.tensors[index]) for role, index in output_roles(model).items()},
        layers=dict(zip(layer_names(found), arithmetics, strict=False)),
        codebook_size=codebook_size(
            weights_of(model, kernel) for kernel in found if kernel.operator != "DEPTHWISE_CONV_2D"
        ),
        symmetric_activations=_symmetric(found),
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


def _arithmetic(kernel: Kernel, any_dynamic: bool) -> str:
    if any_dynamic and kernel.arithmetic == "float32" and kernel.elements < SMALL_KERNEL:
        return FLOAT32_SMALL
    return kernel.arithmetic


def _symmetric(found: Sequence[Kernel]) -> bool | None:
    tensors = [tensor for kernel in found if kernel.is_integer for tensor in (kernel.activations, kernel.output)]
    return all(not np.any(tensor.quantization.zeroPoint) for tensor in tensors) if tensors else None


def check_audit(found: Audit, scheme: Scheme, kept_float: Sequence[str] = ()) -> None:
    """Refuses an artifact that does not hold what its scheme promises.

    Args:
        found: What the artifact holds.
        scheme: How it was to be made.
        kept_float: Canonical names of the layers that were to stay in float.

    Raises:
        AuditMismatch: If it holds something else; the message names all differences.
    """
    expected, axes = expectation_of(scheme), scheme.axes()
    differences = [
        *_arithmetic_differences(found, expected, kept_float),
        *_stored_differences(found, expected, any_float=bool(kept_float)),
        *_granularity_differences(found, axes.get("granularity")),
        *_symmetry_differences(found, expected.always_symmetric or axes.get("symmetry") == "symmetric"),
        *_codebook_differences(found, scheme.transform),
        *_end_differences(found, axes.get("input_type", "float32"), axes.get("output_type", "float32")),
    ]
    if differences:
        raise AuditMismatch(f"the artifact is not {scheme.name}: {'; '.join(differences)}")


def _arithmetic_differences(found: Audit, expected: Expectation, kept_float: Sequence[str]) -> list[str]:
    if not found.mac_share:
        return ["it has no multiply-accumulates"]
    if kept_float:
        return _layer_differences(found, expected, kept_float)
    if expected.depthwise and found.layers and not _layer_differences(found, expected, ()):
        return []
    allowed = (expected.arithmetic, *expected.excused)
    lines = [
        f"{share:.2%} of its multiply-accumulates are {name}, not {expected.arithmetic}{_where(found, name)}"
        for name, share in found.mac_share.items()
        if name not in allowed
    ]
    return lines or ([] if expected.arithmetic in found.mac_share else [f"no kernel is {expected.arithmetic}"])


def _layer_differences(found: Audit, expected: Expectation, kept_float: Sequence[str]) -> list[str]:
    lost = [name for name in kept_float if name not in found.layers]
    if lost:
        return [f"its kernels have lost the names of layers, so that nothing shows that {_some(lost)} stayed in float"]
    wanted = {
        name: ("float32", FLOAT32_SMALL)
        if name in kept_float
        else (expected.of(name).arithmetic, *expected.of(name).excused)
        for name in found.layers
    }
    wrong: dict[tuple[str, str], list[str]] = {}
    for name, arithmetic in found.layers.items():
        if arithmetic not in wanted[name]:
            wrong.setdefault((arithmetic, wanted[name][0]), []).append(name)
    return [f"{_some(names)}: {is_now} arithmetic, not {was_to_be}" for (is_now, was_to_be), names in wrong.items()]


def _where(found: Audit, arithmetic: str) -> str:
    names = [name for name, other in found.layers.items() if other == arithmetic]
    return f" ({_some(names)})" if names and len(names) < len(found.layers) else ""


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _stored_differences(found: Audit, expected: Expectation, any_float: bool) -> list[str]:
    quantized = {expected.stored} | ({expected.depthwise.stored} if expected.depthwise else set())
    allowed = quantized | ({"float32"} if any_float or expected.excused else set())
    lines = [
        f"{share:.2%} of its weights are {name}, not {expected.stored}"
        for name, share in found.weight_share.items()
        if name not in allowed
    ]
    return lines or ([] if quantized & set(found.weight_share) else [f"no weights are {expected.stored}"])


def _granularity_differences(found: Audit, wanted: str | None) -> list[str]:
    # None: both granularities are the same thing for each kernel.
    if wanted is None or found.granularity in (wanted, None):
        return []
    return [f"its granularity is {found.granularity}, not {wanted}"]


def _symmetry_differences(found: Audit, is_promised: bool) -> list[str]:
    is_broken = is_promised and found.symmetric_activations is False
    return ["its activations have zero points other than 0, so they are not symmetric"] if is_broken else []


def _codebook_differences(found: Audit, transform: str) -> list[str]:
    limit = codebook_limit(transform)
    if limit is None or 0 < found.codebook_size <= limit:
        return []
    return [f"a channel has {found.codebook_size} distinct weights, where {transform} leaves {limit}"]


def _end_differences(found: Audit, input_type: str, output_type: str) -> list[str]:
    lines = [] if found.input_type == input_type else [f"the input is {found.input_type}, not {input_type}"]
    if set(found.output_types) != {"boxes", "scores"}:
        lines.append(f"the outputs are {sorted(found.output_types)}, not boxes and scores")
    wrong = {role: kind for role, kind in found.output_types.items() if kind != output_type}
    return lines + [f"{role} is {kind}, not {output_type}" for role, kind in wrong.items()]
