"""Are variants of one structure alike in latency? Structures are measured once, so they must be.

Families of artifacts with equal structure and different values, on each runtime: int8 with other calibrations, float32
with other weights, and pathological ones: zeros, and denormal numbers (below 1.2e-38 in float32), which most CPUs need
microcode for. Each is timed beside the first of its family. Also counts denormal numbers among the activations of the
real detector on real images.

Run: `python -m tests.benchmarks.latency_of_structures [--family NAME ...] [--seconds 15] [--json FILE]` with
QUANTSWEEP_REFERENCE_DATA set; all families take about 20 minutes.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tasks.detector.weights import Detector
from tasks.identity import sha256_of
from tasks.latency.duel import Contender, DuelOptions
from tasks.quantize import flatbuffer
from tasks.quantize.artifact import make
from tasks.quantize.formats.base import format_of
from tasks.quantize.kernels import kernels
from tasks.quantize.layer_names import layer_names, layer_of
from tasks.quantize.observe import observe
from tasks.quantize.schemes import Float32, StaticInt8
from tasks.quantize.statistics import Statistics, merge
from tasks.quantize.transforms.base import transformed
from tasks.runtimes.torch import eager_file
from tasks.types import RuntimeSettings
from tests.benchmarks.latency_reference import (
    Measurement,
    measured,
    real_detector,
    real_float32,
    real_images,
    real_scene,
    write_measurements,
)

DENORMAL = 1e-39
"""What normal numbers are scaled by to become denormal ones, with 20 bits left of their 24."""

FIRST_LAYER = "Conv2d_0"

Change = Callable[[str, str, np.ndarray], np.ndarray]
"""(layer, `weights` or `bias`, values) -> values of the same shape; indifferent to the order of dimensions."""

Members = Iterator[tuple[str, bytes]]


def _same(_: str, __: str, values: np.ndarray) -> np.ndarray:
    return values


def _random(layer: str, role: str, values: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(int(sha256_of(f"{layer}/{role}".encode())[:8], 16))
    return random.normal(values.mean(), values.std() + 1e-6, values.shape)


def _mostly_zero(layer: str, role: str, values: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(len(layer))
    return np.where(random.random(values.shape) < 0.9, 0, values) if role == "weights" else values


def _zero(_: str, __: str, values: np.ndarray) -> np.ndarray:
    return np.zeros_like(values)


def _few_denormal_weights(layer: str, role: str, values: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(len(layer))
    return np.where(random.random(values.shape) < 0.01, values * DENORMAL, values) if role == "weights" else values


def _denormal_weights(_: str, role: str, values: np.ndarray) -> np.ndarray:
    return values * DENORMAL if role == "weights" else values


def _one_denormal_layer(layer: str, _: str, values: np.ndarray) -> np.ndarray:
    return values * DENORMAL if layer == FIRST_LAYER else values


def _denormal_activations(layer: str, role: str, values: np.ndarray) -> np.ndarray:
    """Layers scale with what they read, as long as no cap is met: so do all of them if their biases do."""
    return values * DENORMAL if layer == FIRST_LAYER or role == "bias" else values


ORDINARY: dict[str, Change] = {
    "as it is": _same,
    "random": _random,
    "0.9 of weights zero": _mostly_zero,
    "all zero": _zero,
}
PATHOLOGICAL: dict[str, Change] = {
    "0.01 of weights denormal": _few_denormal_weights,
    "all weights denormal": _denormal_weights,
    "first layer denormal": _one_denormal_layer,
    "all activations denormal": _denormal_activations,
}
CHANGES = ORDINARY | PATHOLOGICAL

INT8: dict[str, dict[str, Any]] = {
    "8 images": {"calibration_images": 8},
    "4 other images": {"calibration_images": 4, "calibration_seed": 1},
    "percentile": {"calibration_images": 8, "range_estimator": "percentile_99_99"},
    "entropy": {"calibration_images": 8, "range_estimator": "entropy"},
    "mse": {"calibration_images": 8, "range_estimator": "mse"},
    "fixed": {"range_estimator": "fixed"},
    "symmetric": {"calibration_images": 8, "symmetry": "symmetric"},
}


def main() -> None:
    """Measures all families and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--seconds", type=float, default=15, help="time cap of one measurement")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to save all pairs")
    arguments = parser.parse_args()
    groups: dict[str, list[Measurement]] = {}
    print(denormals())
    options = DuelOptions(max_seconds=arguments.seconds, min_rounds=4)
    for name in arguments.family:
        runtime, form, members = FAMILIES[name]
        settings = RuntimeSettings(runtime, arguments.threads)
        print(f"\n{name}, {arguments.threads} threads\n")
        print("| variant | one structure | ratio [interval] | ms |\n|---|---|---|---|", flush=True)
        groups[name] = list(_family(settings, form, members(), options))
        if arguments.json:
            write_measurements(arguments.json, groups)


def _family(settings: RuntimeSettings, form: str, members: Members, options: DuelOptions) -> Iterator[Measurement]:
    """Times each member beside the first, and the first beside itself."""
    structure, first, alike = format_of(form).structure, b"", list[Measurement]()
    for name, data in members:
        first = first or data
        sides = (Contender(first, settings), Contender(data, settings))
        # Far from 1 the interval is narrow enough long before a slow one has done many pairs.
        found = measured(*sides, real_scene(), replace(options, pairs=2) if name in PATHOLOGICAL else options)
        is_one = structure(data) == structure(first)
        milliseconds = np.median([second for each in found.rounds for _, second in each])
        interval = f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]"
        words = f"| {name} | {'yes' if is_one else 'NO'} | {interval} | {milliseconds:.2f} |"
        print(words + " noisy" * bool(found.noisy), flush=True)
        alike += [found] if is_one and name not in PATHOLOGICAL else []
        yield found
    ratios = [each.ratio for each in alike]
    print(
        f"\nof one structure, without denormals: {min(ratios):.3f} to {max(ratios):.3f};"
        f" {sum(each.holds(1) for each in alike)} of {len(alike)} intervals hold 1.0",
        flush=True,
    )


def _litert_float32() -> Members:
    for name, change in ORDINARY.items():
        yield name, flatbuffer_with(real_float32(), change)
    for transform in ("clustered_4", "binary"):
        yield transform, make(transformed(real_detector(), transform), Float32(transform=transform))
    for name, change in PATHOLOGICAL.items():
        yield name, flatbuffer_with(real_float32(), change)


def _onnx_float32() -> Members:
    for name, change in CHANGES.items():
        yield name, graph_with(_onnx(), change)


def _torch_float32() -> Members:
    for name, change in CHANGES.items():
        yield name, eager_file(_changed(change), "channels_last")


def _litert_int8() -> Members:
    for name, axes in INT8.items():
        scheme = StaticInt8(toolchain="litert_quantizer", **axes)
        yield name, make(real_detector(), scheme, real_float32(), _statistics(scheme))


def _litert_int8_weights() -> Members:
    """One set of ranges, other weights: what retraining would do."""
    statistics = _statistics(StaticInt8(calibration_images=8))
    for name, change in ORDINARY.items():
        if change is not _zero:
            # Zero weights have no scale, so there is no such artifact.
            detector = _changed(change)
            yield name, make(detector, StaticInt8(calibration_images=8), make(detector, Float32()), statistics)


def _onnx_int8() -> Members:
    for name, axes in INT8.items():
        scheme = StaticInt8(toolchain="onnxruntime", **axes)
        yield name, make(real_detector(), scheme, _onnx(), _statistics(scheme))


FAMILIES: dict[str, tuple[str, str, Callable[[], Members]]] = {
    "litert-float32": ("litert", "tflite", _litert_float32),
    "litert-int8": ("litert", "tflite", _litert_int8),
    "litert-int8-weights": ("litert", "tflite", _litert_int8_weights),
    "onnxruntime-float32": ("onnxruntime", "onnx", _onnx_float32),
    "onnxruntime-int8": ("onnxruntime", "onnx", _onnx_int8),
    "openvino-float32": ("openvino", "onnx", _onnx_float32),
    "openvino-int8": ("openvino", "onnx", _onnx_int8),
    "torch-float32": ("torch", "torch.safetensors", _torch_float32),
}
"""(runtime, format, members) by name."""


def _changed(change: Change) -> Detector:
    detector = real_detector()
    tensors = {}
    for name, values in detector.tensors.items():
        layer, _, role = name.partition("/")
        tensors[name] = change(layer, role, values).astype(np.float32) if role != "cap" else values
    return Detector(detector.spec, tensors)


def flatbuffer_with(data: bytes, change: Change) -> bytes:
    """Changes the weights and biases of a float32 .tflite and nothing else."""
    model = flatbuffer.read(data)
    found = kernels(model)
    for layer, kernel in zip(layer_names(found), found, strict=True):
        for role, tensor in (("weights", kernel.weights), ("bias", kernel.bias)):
            if tensor is not None:
                values = np.frombuffer(flatbuffer.constant(model, tensor) or b"", np.float32)
                changed = change(layer, role, values).astype(np.float32)
                # A buffer of its own: equal values of two layers may be stored once.
                model.buffers.append(type(model.buffers[0])())
                model.buffers[-1].data = np.frombuffer(changed.tobytes(), np.uint8)
                tensor.buffer = len(model.buffers) - 1
    return flatbuffer.write(model)


def graph_with(data: bytes, change: Change) -> bytes:
    """Changes the weights and biases of a float32 .onnx and nothing else."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(data)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            for role, name in zip(("weights", "bias"), node.input[1:], strict=False):
                values = change(layer_of(node.name) or "", role, numpy_helper.to_array(constants[name]))
                constants[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return bytes(model.SerializeToString())


@cache
def _onnx() -> bytes:
    return make(real_detector(), Float32(toolchain="onnx"))


@cache
def _parts() -> tuple[Statistics, ...]:
    pixels = real_images(16).pixels
    return observe(real_float32(), pixels, [str(index) for index in range(len(pixels))])


def _statistics(scheme: StaticInt8) -> Statistics:
    """Of as many images as the scheme asks for; with another seed, of others."""
    begin = 8 * scheme.calibration_seed
    count = 1 if scheme.range_estimator == "fixed" else scheme.calibration_images
    return merge(*_parts()[begin : begin + count])


def denormals() -> str:
    """Counts small numbers among the weights of the real detector and its activations on real images."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=real_float32(),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    graph = flatbuffer.read(real_float32()).subgraphs[0]
    computed = [int(index) for operator in graph.operators for index in operator.outputs]
    least, denormal, count = np.inf, 0, 0
    for image in real_images().pixels:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None] / np.float32(127.5) - 1)
        interpreter.invoke()
        for index in computed:
            values = np.abs(interpreter.get_tensor(index))
            small, here = _small(values)
            least, denormal, count = min(least, small), denormal + here, count + values.size
    weights = [_small(np.abs(values)) for values in real_detector().tensors.values()]
    return (
        f"weights: {sum(here for _, here in weights)} denormal, least magnitude but 0"
        f" {min(small for small, _ in weights):.2g}\n"
        # LiteRT flushes denormal results to zero, so the least magnitude tells how near others would come to them.
        f"activations on {len(real_images())} images: {denormal} of {count} denormal, least magnitude but 0 {least:.2g}"
    )


def _small(magnitudes: np.ndarray) -> tuple[float, int]:
    """Returns the least magnitude that is not 0, and how many are denormal."""
    found = magnitudes[magnitudes > 0]
    return float(found.min(initial=np.inf)), int((found < np.finfo(np.float32).tiny).sum())


if __name__ == "__main__":
    main()
