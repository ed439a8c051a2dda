"""A/B test with a known difference: is an artifact with 3 % or 5 % more work found to be slower, and by how much?

The slower artifacts are the real detector's float32 .tflite with a residual branch of two 1x1 convolutions about its
eleventh pointwise convolution; how many channels lie between the two is what tunes the work. The result is added, so
that nothing can be left out; its weights are so small that the detector finds the same. Which numbers of channels come
nearest to 3 % and 5 %, and how much they really cost, is calibrated with long measurements of their own first; no data
of the calibration are used in the test.

Run: `python -m tests.benchmarks.latency_known_difference [--measurements 40] [--calibration-seconds 240] [--json FILE]`
with QUANTSWEEP_REFERENCE_DATA set, on a machine with nothing else to do; about half an hour.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.latency.duel import Contender, DuelOptions
from tasks.latency.scene import Scene
from tasks.quantize import flatbuffer
from tasks.types import RuntimeSettings
from tests.benchmarks.latency_reference import (
    Measurement,
    measured,
    real_float32,
    real_scene,
    share_line,
    write_measurements,
)

WANTED = (1.03, 1.05)
_PROBE = 128
_STEP = 8
"""Channels are multiples of it: kernels work on as many at once."""

_CALIBRATION_SEED = 1_000_000
_TINY = 1e-6
"""Greatest weight of the branch's second convolution: far from what a score notices, and from denormal numbers."""

_WIDENED = "Conv2d_11_pointwise"


def main() -> None:
    """Calibrates, tests and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=40)
    parser.add_argument("--calibration-seconds", type=float, default=240)
    parser.add_argument("--json", type=Path, help="where to save all pairs")
    arguments = parser.parse_args()
    scene, seconds, groups = real_scene(), arguments.calibration_seconds, dict[str, list[Measurement]]()
    probe = _calibrated(_PROBE, scene, seconds / 2)
    print(f"probe: {_PROBE} channels: {probe}", flush=True)
    for number, wanted in enumerate(WANTED):
        channels = channels_for(wanted, probe.ratio)
        truth = _calibrated(channels, scene, seconds)
        name = f"+{100 * (wanted - 1):.0f} %"
        groups[f"{name} calibration"], groups[name] = [truth], []
        print(f"\n{name}: {channels} channels; calibrated: {truth}", flush=True)
        for seed in range(arguments.measurements):
            options = DuelOptions(seed=1000 * number + seed)
            groups[name].append(measured(_contender(None), _contender(channels), scene, options))
            print(groups[name][-1], flush=True)
            if arguments.json:
                write_measurements(arguments.json, groups)
        print(summary(truth, groups[name]))


def summary(truth: Measurement, found: Sequence[Measurement]) -> str:
    """Says how often a difference was found, and the right one."""
    ratios = np.array([each.ratio for each in found])
    error = ratios.std(ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else np.nan
    return "\n".join(
        (
            f"calibrated truth: {truth.ratio:.4f} [{truth.low:.4f}, {truth.high:.4f}], {len(truth.rounds)} rounds",
            f"found slower: {share_line(sum(each.low > 1 for each in found), len(found))}",
            f"found faster: {sum(each.high < 1 for each in found)}",
            f"intervals that hold the calibrated truth: "
            f"{share_line(sum(each.holds(truth.ratio) for each in found), len(found))}",
            f"mean estimate {ratios.mean():.4f} (standard error {error:.4f}), standard deviation"
            f" {100 * ratios.std():.2f} %",
            f"marked noisy: {sum(bool(each.noisy) for each in found)} of {len(found)}",
            f"median width of the interval: {100 * np.median([each.high - each.low for each in found]):.2f} %",
            f"median time: {np.median([each.seconds for each in found]):.1f} s",
        )
    )


def channels_for(wanted: float, probed: float) -> int:
    """Interpolates from the ratio of the probe; a branch without channels would still add."""
    fitting = _PROBE * (wanted - 1) / max(probed - 1, 1e-3)
    return max(_STEP, _STEP * round(fitting / _STEP))


def _calibrated(channels: int, scene: Scene, seconds: float) -> Measurement:
    options = DuelOptions(max_seconds=seconds, target_half_width=0.0015, seed=_CALIBRATION_SEED + channels)
    return measured(_contender(None), _contender(channels), scene, options)


def _contender(channels: int | None) -> Contender:
    data = real_float32()
    return Contender(data if channels is None else with_more_work(data, channels), RuntimeSettings())


def with_more_work(data: bytes, channels: int) -> bytes:
    """Adds a residual branch to a detector's float32 .tflite.

    Args:
        data: Content of the file.
        channels: Channels between the branch's two 1x1 convolutions.

    Returns:
        Content of the file with x + second(relu6(first(x))) in place of x, the activations of `_WIDENED`.
    """
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    place, producer = next(
        (index, operator)
        for index, operator in enumerate(graph.operators)
        if flatbuffer.operator_name(model, operator) == "CONV_2D"
        and _WIDENED in flatbuffer.text(graph.tensors[int(operator.outputs[0])].name)
    )
    before = int(producer.outputs[0])
    _, height, width, depth = (int(size) for size in graph.tensors[before].shape)
    random = np.random.default_rng(0)
    first = random.normal(0, np.sqrt(2 / depth), (channels, 1, 1, depth))
    second = random.uniform(-_TINY, _TINY, (depth, 1, 1, channels)) / channels
    between = _added_tensor(model, "more/between", (1, height, width, channels))
    small = _added_tensor(model, "more/small", (1, height, width, depth))
    after = _added_tensor(model, "more/sum", (1, height, width, depth))
    for operator in graph.operators[place + 1 :]:
        operator.inputs = np.array(
            [after if int(index) == before else int(index) for index in operator.inputs], np.int32
        )
    branch = [
        _convolution(model, producer, before, first, between, "more/first", is_capped=True),
        _convolution(model, producer, between, second, small, "more/second", is_capped=False),
        _addition(model, before, small, after),
    ]
    graph.operators[place + 1 : place + 1] = branch
    return flatbuffer.write(model)


def _convolution(
    model: Any, like: Any, source: int, weights: np.ndarray, output: int, name: str, is_capped: bool
) -> Any:
    from ai_edge_litert.schema_py_generated import ActivationFunctionType

    made = copy.copy(like)
    made.builtinOptions = copy.copy(like.builtinOptions)
    options = made.builtinOptions
    kinds = ActivationFunctionType
    options.fusedActivationFunction = kinds.RELU6 if is_capped else kinds.NONE
    options.strideW = options.strideH = 1
    bias = np.full(len(weights), 0.1 if is_capped else 0.0)
    made.inputs = np.array(
        [
            source,
            _added_tensor(model, f"{name}/weights", weights.shape, weights),
            _added_tensor(model, f"{name}/bias", bias.shape, bias),
        ],
        np.int32,
    )
    made.outputs = np.array([output], np.int32)
    return made


def _addition(model: Any, one: int, other: int, output: int) -> Any:
    from ai_edge_litert.schema_py_generated import (
        AddOptionsT,
        BuiltinOperator,
        BuiltinOptions,
        OperatorCodeT,
        OperatorT,
    )

    code = OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = BuiltinOperator.ADD
    code.version = 1
    model.operatorCodes.append(code)
    made = OperatorT()
    made.opcodeIndex = len(model.operatorCodes) - 1
    made.inputs, made.outputs = np.array([one, other], np.int32), np.array([output], np.int32)
    made.builtinOptionsType, made.builtinOptions = BuiltinOptions.AddOptions, AddOptionsT()
    return made


def _added_tensor(model: Any, name: str, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
    """Adds a float32 tensor, constant if it has values; returns its index."""
    from ai_edge_litert.schema_py_generated import BufferT, TensorT, TensorType

    buffer = BufferT()
    if values is not None:
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = TensorT()
    tensor.name, tensor.shape, tensor.type = name, np.array(shape, np.int32), TensorType.FLOAT32
    tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


if __name__ == "__main__":
    main()
