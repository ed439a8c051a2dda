"""onnxruntime.quantization: integer .onnx files from the float32 one, with our own ranges. No image is run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.quantize import qat
from tasks.quantize.builders import Builder, Limit, Material, decline, register
from tasks.quantize.layer_ranges import IMAGE, layer_ranges
from tasks.quantize.onnx_export import export
from tasks.quantize.onnx_graph import parsed
from tasks.quantize.schemes import DynamicInt8, QatInt4, QatInt8, StaticInt4, StaticInt8

_QUANTIZED = ("Conv", "Clip", "Relu")
"""Operators that are quantized. A Clip or Relu after a Conv goes away where the integers saturate at its bounds. The
heads are joined in float: transposes and reshapes of integers run as such all the same, and one scale for all heads,
which a Concat of integers wants, costs accuracy and saves nothing."""

_WEIGHT_LEVELS = 127
"""Greatest magnitude of a quantized weight."""

_BIAS_HALF_RANGE = 2**30
"""Greatest magnitude of a quantized bias: half of int32, so that the sum of products has the other half."""


def build_dynamic(material: Material, scheme: DynamicInt8) -> bytes:
    """Makes convolutions of 8-bit weights that quantize their input by its range in each inference (ConvInteger).

    Args:
        material: The float32 .onnx, and the layers that stay in float.
        scheme: What to make.

    Returns:
        Content of a .onnx file.

    Raises:
        QuantizationFailed: If the float32 artifact is missing.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    quantizer = ONNXQuantizer(
        _source(material),
        per_channel=False,
        reduce_range=False,
        mode=QuantizationMode.IntegerOps,
        static=False,
        # ConvInteger takes int8 weights as well, and is three times slower with them.
        weight_qType=QuantType.QUInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=None,
        nodes_to_quantize=[],
        nodes_to_exclude=list(material.kept_float),
        op_types_to_quantize=["Conv"],
        extra_options={},
    )
    quantizer.quantize_model()
    return _content(quantizer)


def build_static(material: Material, scheme: StaticInt8) -> bytes:
    """Puts QuantizeLinear and DequantizeLinear around the convolutions (QDQ), with ranges from our statistics.

    Args:
        material: The float32 .onnx, statistics, and the layers that stay in float.
        scheme: What to make.

    Returns:
        Content of a .onnx file.

    Raises:
        QuantizationFailed: If the float32 artifact or statistics are missing, or they are of another detector.
    """
    ranges = layer_ranges(scheme, material.detector, material.statistics)
    return _static(_source(material), material, scheme, ranges)


def build_qat(material: Material, scheme: QatInt8) -> bytes:
    """Puts QuantizeLinear and DequantizeLinear around the convolutions, as `build_static` does, with trained ranges.

    With the ranges of post-training quantization all is the same but the scales of the heads' outputs: training gives
    those of one role one range, and post-training quantization each its own, since this graph joins them in float.

    Args:
        material: The trained detector, its ranges, and the layers that stay in float.
        scheme: What to make.

    Returns:
        Content of a .onnx file.
    """
    return _static(parsed(export(material.detector)), material, scheme, material.ranges or {})


def _static(model: Any, material: Material, scheme: StaticInt8, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    quantizer = QDQQuantizer(
        model,
        per_channel=scheme.granularity == "per_channel",
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if scheme.activation_type == "uint8" else QuantType.QInt8,
        tensors_range=_tensor_ranges(model, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=list(material.kept_float),
        op_types_to_quantize=list(_QUANTIZED),
        extra_options={
            "ActivationSymmetric": scheme.symmetry == "symmetric",
            "TensorQuantOverrides": _weight_ranges(model, material.detector, scheme, ranges),
        },
    )
    quantizer.quantize_model()
    return _content(quantizer)


def _source(material: Material) -> Any:
    if material.source is None:
        raise QuantizationFailed("the toolchain onnxruntime starts from the float32 .onnx, and none was given")
    return parsed(material.source)


def _content(quantizer: Any) -> bytes:
    """Returns the bytes of what a quantizer made, in order of execution and without notes."""
    import onnx

    quantizer.model.topological_sort()
    model = quantizer.model.model
    model.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    model.producer_name, model.producer_version = "quantsweep", ""
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _tensor_ranges(model: Any, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Names the ranges as the graph names its tensors.

    What a Conv gives before its activation function has the range after it: the integers saturate there.
    """
    from onnxruntime.quantization.calibrate import TensorData

    owners = {item.name: IMAGE for item in model.graph.input}
    for node in model.graph.node:
        layer = node.name.split("/")[0]
        if layer in ranges and node.op_type not in ("Transpose", "Reshape"):
            owners |= dict.fromkeys(node.output, layer)
    return {
        tensor: TensorData(lowest=np.float32(ranges[owner][0]), highest=np.float32(ranges[owner][1]))
        for tensor, owner in owners.items()
    }


def _weight_ranges(
    model: Any, detector: Detector, scheme: StaticInt8, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, list[dict[str, Any]]]:
    """Widens the ranges of weights whose bias would else not fit; see `tasks.quantize.weight_ranges`.

    The library has a guard of its own, which lets a bias fill all 32 bits, so that the sum of products makes it wrap,
    and gives channels of zeros the scale 1, in whose steps their bias is coarse.

    Returns:
        Overrides of the library by name of the weights, for the layers that need them alone.
    """
    overrides: dict[str, list[dict[str, Any]]] = {}
    for layer in layers(detector.spec):
        weights, bias = (_constant(model, f"{layer.name}.{role}") for role in ("weight", "bias"))
        own = np.abs(weights).reshape(len(weights), -1).max(axis=1)
        floor = _WEIGHT_LEVELS * np.abs(bias) / (_BIAS_HALF_RANGE * _input_scale(scheme, ranges[layer.source]))
        if scheme.granularity == "per_tensor":
            own, floor = own.max(keepdims=True), floor.max(keepdims=True)
        if (floor <= own).all():
            continue
        wanted = np.maximum(own, floor).astype(np.float32)
        overrides[f"{layer.name}.weight"] = [{"rmin": -bound, "rmax": bound, "symmetric": True} for bound in wanted]
        if scheme.granularity == "per_channel":
            for channel in overrides[f"{layer.name}.weight"]:
                channel["axis"] = 0
    return overrides


def _constant(model: Any, name: str) -> np.ndarray:
    import onnx

    found = [tensor for tensor in model.graph.initializer if tensor.name == name]
    if not found:
        raise QuantizationFailed(f"the float32 .onnx is of another detector: it lacks {name}")
    return np.asarray(onnx.numpy_helper.to_array(found[0]))


def _input_scale(scheme: StaticInt8, source: tuple[float, float]) -> float:
    """Returns the step of a layer's input: nearly, since the library may have one integer more or less."""
    low, high = min(source[0], 0.0), max(source[1], 0.0)
    span = 2 * max(-low, high) if scheme.symmetry == "symmetric" else high - low
    return span / 255 or 1.0


_FLOAT32_ENDS = tuple(
    Limit(axis, ("float32",), "the QDQ format keeps the ends of the graph in float")
    for axis in ("input_type", "output_type")
)
_MIN_MAX_WEIGHTS = Limit("weight_algorithm", ("min_max",), "it quantizes weights over their least and greatest value")

register(
    Builder(
        DynamicInt8,
        "onnxruntime",
        ("onnxruntime",),
        "none",
        build_dynamic,
        format="onnx",
        source="onnx",
        packages=("onnxruntime", "onnx"),
        limits=(
            Limit("granularity", ("per_tensor",), "it gives the weights of a ConvInteger one scale"),
            _MIN_MAX_WEIGHTS,
        ),
    )
)
register(
    Builder(
        StaticInt8,
        "onnxruntime",
        ("onnxruntime", "openvino"),
        "none",
        build_static,
        format="onnx",
        source="onnx",
        packages=("onnxruntime", "onnx"),
        limits=(_MIN_MAX_WEIGHTS, *_FLOAT32_ENDS),
    )
)
register(
    Builder(
        QatInt8,
        "onnxruntime",
        ("onnxruntime", "openvino"),
        "torch",
        build_qat,
        format="onnx",
        packages=("onnxruntime", "onnx", "onnxscript", "torch"),
        limits=(*qat.LIMITS, *_FLOAT32_ENDS),
        defaults=(("trainer", "torch"),),
    )
)
for _scheme in (StaticInt4, QatInt4):
    decline(_scheme, "no runtime of QDQ models has convolutions of 4-bit weights", "onnxruntime", "openvino")
