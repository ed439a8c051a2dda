"""The format `openvino.zip`: OpenVINO models, read back from the graph and from what the CPU plugin makes of it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.errors import AuditMismatch
from tasks.identity import key_of
from tasks.quantize.formats.base import Format, register, shares
from tasks.quantize.layer_names import layer_of
from tasks.quantize.openvino_graph import Kernel, activation_form, element_type, kernels
from tasks.quantize.stored_weights import codebook_size
from tasks.runtimes.openvino import ExecutedKernel, compiled_for_cpu, executed_kernels, opened
from tasks.types import Audit, RuntimeSettings

_SILENT = ("Constant", "Parameter", "Result")
"""Operators that do nothing."""


def audit(data: bytes) -> Audit:
    """Reads an artifact back: the stored weights from its graph, the arithmetic from the model compiled for this CPU.

    Args:
        data: Content of an OpenVINO archive.

    Returns:
        What it holds. A layer with integer weights that is nevertheless executed in float is `weight_only_int8`.

    Raises:
        ArtifactUnreadable: If the content is not an OpenVINO model of a detector.
        AuditMismatch: If the convolutions of the graph and of the compiled model are not the same ones.
    """
    model = opened(data)
    stored = kernels(model)
    operators = Counter(operation.get_type_name() for operation in model.get_ordered_ops())
    forms = [form for form in map(activation_form, model.get_ordered_ops()) if form]
    ends = {name: element_type(port) for port in model.outputs for name in port.get_names()}
    arithmetics = _arithmetics(stored, executed_kernels(compiled_for_cpu(model, RuntimeSettings("openvino"))))
    macs, weights = Counter[str](), Counter[str]()
    for kernel, arithmetic in zip(stored, arithmetics, strict=True):
        macs[arithmetic] += kernel.macs
        weights[kernel.stored] += kernel.weights.size
    layers = {kernel.layer: arithmetic for kernel, arithmetic in zip(stored, arithmetics, strict=True) if kernel.layer}
    granularities = {kernel.granularity for kernel in stored} - {None}
    return Audit(
        mac_share=shares(macs),
        weight_share=shares(weights),
        granularity="mixed" if len(granularities) > 1 else next(iter(granularities), None),
        operators={name: count for name, count in sorted(operators.items()) if name not in _SILENT},
        macs=macs.total(),
        input_type=element_type(model.input(0)),
        output_types={role: ends[role] for role in ("boxes", "scores")},
        layers=layers if len(layers) == len(stored) else {},
        codebook_size=codebook_size(kernel.weights for kernel in stored if not kernel.is_depthwise),
        symmetric_activations="shifted" not in forms if forms else None,
    )


def structure_sha256(data: bytes) -> str:
    """Hashes the graph of an artifact without its values.

    In: operators in order with their attributes, what each one reads, shapes and element types; small integer
    constants such as shapes and axes; for each quantized activation whether it is signed and whether it has a zero
    point, which OpenVINO tells from its range. Out: weights, biases, scales, ranges, names.

    Args:
        data: Content of an OpenVINO archive.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArtifactUnreadable: If the content is not an OpenVINO model of a detector.
    """
    model = opened(data)
    working = [operation for operation in model.get_ordered_ops() if operation.get_type_name() != "Constant"]
    places = {operation.get_name(): place for place, operation in enumerate(working)}
    return key_of([_structure(operation, places) for operation in working])


def _arithmetics(stored: Sequence[Kernel], executed: Sequence[ExecutedKernel]) -> list[str]:
    """What each convolution of the graph is executed in."""
    by_name = {name: kernel for kernel in executed for name in kernel.names}
    # What takes the place of a convolution may have the name of another operator of its layer, or a new one.
    by_layer = {layer_of(name): kernel for name, kernel in by_name.items() if layer_of(name)}
    found = [by_name.get(kernel.name) or by_layer.get(kernel.layer) for kernel in stored]
    nameless = {kernel.arithmetic for kernel in executed if kernel not in found}
    if len(stored) != len(executed) or (None in found and len(nameless) != 1):
        raise AuditMismatch(f"the compiled model has {len(executed)} convolutions for {len(stored)} of the graph")
    return [
        _arithmetic(kernel, match.arithmetic if match else next(iter(nameless)))
        for kernel, match in zip(stored, found, strict=True)
    ]


def _arithmetic(kernel: Kernel, executed: str) -> str:
    return f"weight_only_{kernel.stored}" if len(kernel.scales) and executed == "float32" else executed


def _structure(operation: Any, places: dict[str, int]) -> list[Any]:
    return [
        operation.get_type_name(),
        {name: str(value) for name, value in sorted(operation.get_attributes().items())},
        activation_form(operation),
        [_read(port.get_source_output(), places) for port in operation.inputs()],
        [[element_type(port), str(port.get_partial_shape())] for port in operation.outputs()],
        # The ends of the graph are told apart by their names.
        sorted(operation.output(0).get_names()) if operation.get_type_name() in ("Parameter", "Result") else [],
    ]


def _read(port: Any, places: dict[str, int]) -> list[Any]:
    """What an operator reads: the output of another one, or a constant, whose value counts if it steers."""
    operation = port.get_node()
    if operation.get_type_name() != "Constant":
        return [places[operation.get_name()], port.get_index()]
    kind = element_type(port)
    steers = kind in ("int32", "int64")
    return [kind, list(port.get_shape()), np.asarray(operation.data).reshape(-1).tolist() if steers else None]


register(Format("openvino.zip", audit, structure_sha256))
