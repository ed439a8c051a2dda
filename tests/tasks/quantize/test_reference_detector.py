"""The TensorFlow zoo's detector on real images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.coco.dataset import load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.detect import detect_shard
from tasks.detector.importers import import_detector
from tasks.detector.weights import Detector
from tasks.quantize.artifact import build_artifact
from tasks.quantize.audit import audit
from tasks.quantize.builders import builder_of
from tasks.quantize.flatbuffer import constant, read
from tasks.quantize.float_flatbuffer import float_flatbuffer
from tasks.quantize.kernels import kernels
from tasks.quantize.litert_quantizer import weight_ranges
from tasks.quantize.ranges import Ranges, calibrate
from tasks.quantize.schemes import DynamicInt8, Float16, Float32, Scheme, StaticInt8
from tasks.score import merge, score
from tasks.storage import ArtifactStorage
from tasks.types import ImageShard, Postprocessing, RuntimeSettings

pytestmark = pytest.mark.reference_data

BUDGET = 0.010
"""Greatest AP loss on the 80 images of coco-mini that a working quantization of this detector shows."""

SIZES = (8, 64)
TOOLCHAINS = ("converter", "litert_quantizer")
GRANULARITIES = ("per_channel", "per_tensor")


@pytest.fixture(scope="module")
def zoo(reference_data: Path) -> Detector:
    return import_detector(reference_data / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite")


@pytest.fixture(scope="module")
def ranges(zoo: Detector, reference_data: Path) -> dict[int, Ranges]:
    images = load_dataset(reference_data / "coco-calib128" / "train2017", None).images[: max(SIZES)]
    return calibrate(zoo, preprocess_shard(images, zoo.spec.image_size, None).pixels, SIZES)


def test_the_floor_is_for_the_channels_that_were_never_trained(zoo: Detector, ranges: dict[int, Ranges]) -> None:
    model = float_flatbuffer(zoo)
    tree = read(model)
    bounds = weight_ranges(model, ranges[8], "per_channel")
    raised = {}
    for kernel in kernels(tree):
        weights = np.frombuffer(constant(tree, kernel.weights) or b"", np.float32).reshape(kernel.weights.shape)
        others = tuple(axis for axis in range(4) if axis != kernel.channel_axis)
        own = np.abs(weights).max(axis=others, keepdims=True)
        count = int((bounds[kernel.weights.name.decode()] > own).sum())
        if count:
            raised[kernel.channels] = count
            assert (own[bounds[kernel.weights.name.decode()] > own] == 0).all()
    # The four untrained channels of the last box head have no bias either, so nothing of them can overflow.
    assert raised == {6 * len(zoo.spec.class_ids): 90}


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_a_real_artifact_passes_its_audit(
    zoo: Detector, ranges: dict[int, Ranges], toolchain: Any, tmp_path: Path
) -> None:
    artifact = build_artifact(zoo, StaticInt8(toolchain), ranges[64], ArtifactStorage(str(tmp_path)))
    assert artifact.audit.mac_share == {"int8": 1.0}
    assert 4_000_000 < artifact.size_bytes < 4_600_000


def test_the_converter_leaves_four_percent_of_the_real_detector_in_float(zoo: Detector) -> None:
    scheme = DynamicInt8()
    share = audit(builder_of(scheme).build(zoo, scheme, None)).mac_share
    assert share == pytest.approx({"dynamic_int8": 0.9616, "float32_small": 0.0384}, abs=1e-4)


@pytest.fixture(scope="module")
def evaluation(zoo: Detector, reference_data: Path) -> tuple[ImageShard, dict[str, Any]]:
    annotations = reference_data / "coco-mini" / "annotations" / "instances_val2017.json"
    dataset = load_dataset(reference_data / "coco-mini" / "val2017", annotations)
    return preprocess_shard(dataset.images, zoo.spec.image_size, None), json.loads(annotations.read_text())


def average_precision(zoo: Detector, data: bytes, evaluation: tuple[ImageShard, dict[str, Any]]) -> float:
    images, ground_truth = evaluation
    found = detect_shard(data, RuntimeSettings(), zoo.spec, images, Postprocessing(score_threshold=0.05))
    return score(ground_truth, merge([found])).statistics[0]


@pytest.fixture(scope="module")
def reference_ap(zoo: Detector, evaluation: tuple[ImageShard, dict[str, Any]]) -> float:
    return average_precision(zoo, builder_of(Float32()).build(zoo, Float32(), None), evaluation)


@pytest.mark.slow
def test_the_float_detector_has_its_known_accuracy(reference_ap: float) -> None:
    assert reference_ap == pytest.approx(0.2302, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme",
    [
        *(Float16(toolchain) for toolchain in TOOLCHAINS),
        *(DynamicInt8(toolchain, granularity) for toolchain in TOOLCHAINS for granularity in GRANULARITIES),
        *(StaticInt8(toolchain, granularity, size)
          for toolchain in TOOLCHAINS for granularity in GRANULARITIES for size in SIZES),
    ],
    ids=lambda scheme: "-".join([scheme.name, *map(str, scheme.axes().values())]),
)  # fmt: skip
def test_every_scheme_keeps_the_accuracy(
    zoo: Detector,
    ranges: dict[int, Ranges],
    evaluation: tuple[ImageShard, dict[str, Any]],
    reference_ap: float,
    scheme: Scheme,
) -> None:
    data = builder_of(scheme).build(zoo, scheme, ranges.get(getattr(scheme, "calibration_images", 0)))
    assert average_precision(zoo, data, evaluation) >= reference_ap - BUDGET
