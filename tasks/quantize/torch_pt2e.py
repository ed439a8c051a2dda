"""The PT2E toolchain: torchao quantizes an exported detector for x86, AOTInductor compiles it."""

from typing import TYPE_CHECKING, Any

from tasks.detector.weights import Detector
from tasks.quantize import qat
from tasks.quantize.builders import Builder, BuildFunction, Limit, Material, decline, register
from tasks.quantize.exported_program import exported
from tasks.quantize.layer_ranges import layer_ranges
from tasks.quantize.ranges import Ranges
from tasks.quantize.schemes import DynamicInt8, MemoryLayout, QatInt4, QatInt8, Scheme, StaticInt4, StaticInt8
from tasks.quantize.torch_inductor import package

if TYPE_CHECKING:
    import torch


def build_static(material: Material, scheme: StaticInt8) -> bytes:
    """Makes an AOTInductor package with 8-bit weights, and activations quantized over fixed ranges.

    Raises:
        QuantizationFailed: If the statistics are missing, or an activation has no range.
        CompilerMissing: If this machine has no C++ compiler.
    """
    ranges = layer_ranges(scheme, material.detector, material.statistics)
    return package(static_program(material.detector, scheme, ranges, material.kept_float), scheme.memory_layout)


def build_qat(material: Material, scheme: QatInt8) -> bytes:
    """Makes a package as `build_static` does, of trained weights and ranges.

    With the ranges of post-training quantization it compiles the same program: that the heads of one role share a
    range says nothing here, where no kernel reads their outputs.

    Raises:
        QuantizationFailed: If an activation has no range.
        CompilerMissing: If this machine has no C++ compiler.
    """
    program = static_program(material.detector, scheme, material.ranges or {}, material.kept_float)
    return package(program, scheme.memory_layout)


def build_dynamic(material: Material, scheme: DynamicInt8) -> bytes:
    """Makes an AOTInductor package with 8-bit weights, and activations quantized over the range of each inference.

    Raises:
        CompilerMissing: If this machine has no C++ compiler.
    """
    return package(dynamic_program(material.detector, scheme, material.kept_float), scheme.memory_layout)


def static_program(
    detector: Detector, scheme: StaticInt8, ranges: Ranges, kept_float: tuple[str, ...] = ()
) -> "torch.export.ExportedProgram":
    """Quantizes a detector with fixed ranges.

    Args:
        detector: Architecture and weights.
        scheme: How.
        ranges: (low, high) by canonical name of the layer, and of the input under `image`.
        kept_float: Names of layers that stay in float.

    Returns:
        The exported program, in which quantized convolutions read what dequantization gives.

    Raises:
        QuantizationFailed: If an activation has no range.
    """
    from tasks.quantize.torch_annotation import give_ranges, static_activations

    prepared = prepared_module(detector, scheme, static_activations(scheme.symmetry), kept_float)
    give_ranges(prepared, ranges)
    return converted_program(prepared, detector, scheme.memory_layout)


def dynamic_program(
    detector: Detector, scheme: DynamicInt8, kept_float: tuple[str, ...] = ()
) -> "torch.export.ExportedProgram":
    """Quantizes a detector whose activations find their ranges in each inference.

    Args:
        detector: Architecture and weights.
        scheme: How.
        kept_float: Names of layers that stay in float.

    Returns:
        The exported program, in which quantized convolutions read what dequantization gives.
    """
    from tasks.quantize.torch_annotation import dynamic_activations

    prepared = prepared_module(detector, scheme, dynamic_activations(), kept_float)
    return converted_program(prepared, detector, scheme.memory_layout)


def prepared_module(
    detector: Detector, scheme: StaticInt8 | DynamicInt8, activations: Any, kept_float: tuple[str, ...]
) -> "torch.fx.GraphModule":
    """Exports a detector and puts torchao's observers into it.

    Args:
        detector: Architecture and weights.
        scheme: How it is to be quantized.
        activations: Spec of the inputs of convolutions.
        kept_float: Names of layers that stay in float.

    Returns:
        What `prepare_pt2e` gives; it takes images as `example_image` does.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    from tasks.detector.torch_model import build_torch
    from tasks.quantize.torch_annotation import LayerQuantizer, symmetric_weights

    quantizer = LayerQuantizer(activations, symmetric_weights(scheme.granularity), kept_float)
    program = exported(build_torch(detector), detector.spec.image_size, scheme.memory_layout)
    with torch.no_grad():
        return prepare_pt2e(program.module(check_guards=False), quantizer)


def example_image(detector: Detector, memory_layout: MemoryLayout) -> "torch.Tensor":
    """Returns an image (1, 3, S, S) float32 of zeros in a memory layout."""
    import torch

    size = detector.spec.image_size
    return torch.zeros(1, 3, size, size).contiguous(memory_format=_format(memory_layout))


def converted_program(
    prepared: "torch.fx.GraphModule", detector: Detector, memory_layout: MemoryLayout
) -> "torch.export.ExportedProgram":
    """Quantizes a prepared module whose observers of activations have their ranges.

    Args:
        prepared: What `prepared_module` returned.
        detector: What it was made of.
        memory_layout: The memory layout that it was made in.

    Returns:
        The exported program, in which quantized convolutions read what dequantization gives.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    from tasks.quantize.torch_annotation import observe_weights
    from tasks.quantize.torch_lowering import pad_integers, register_patterns

    register_patterns()
    observe_weights(prepared)
    with torch.no_grad():
        converted = convert_pt2e(prepared)
        pad_integers(converted)
        _forget_unused(converted)
        return torch.export.export(converted, (example_image(detector, memory_layout),))


def _forget_unused(model: "torch.fx.GraphModule") -> None:
    """Deletes what no node reads: the float weights, which an exported program would keep beside the integers."""
    read = {node.target for node in model.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*model.named_parameters(), *model.named_buffers()) if name not in read]:
        owner, _, attribute = name.rpartition(".")
        delattr(model.get_submodule(owner), attribute)


def _format(memory_layout: MemoryLayout) -> "torch.memory_format":
    import torch

    return torch.channels_last if memory_layout == "channels_last" else torch.contiguous_format


_LIMITS = (
    Limit("weight_algorithm", ("min_max",), "torchao's PT2E rounds weights to the nearest integer of their range"),
    Limit("input_type", ("float32",), "the quantization of the image is part of the package"),
    Limit("output_type", ("float32",), "oneDNN's convolutions of the heads write float32"),
)


def _register(
    scheme: type[Scheme], build: BuildFunction, limits: tuple[Limit, ...], defaults: tuple[tuple[str, str], ...] = ()
) -> None:
    register(
        Builder(
            scheme=scheme,
            toolchain="pt2e",
            runtimes=("torch",),
            framework="torch",
            build=build,
            format="pt2",
            is_compiled=True,
            packages=("torch", "torchao"),
            limits=limits,
            defaults=defaults,
        )
    )


_register(StaticInt8, build_static, _LIMITS)
_register(DynamicInt8, build_dynamic, _LIMITS[:1])
_register(QatInt8, build_qat, (*qat.LIMITS, *_LIMITS[1:]), (("trainer", "torch"),))
for _scheme in (StaticInt4, QatInt4):
    decline(_scheme, "oneDNN has no convolutions of 4-bit weights, and would store 8 bits", "pt2e", "torch")
