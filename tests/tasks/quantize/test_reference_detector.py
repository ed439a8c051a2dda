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
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.artifact import build_artifact, make
from tasks.quantize.audit import audit
from tasks.quantize.flatbuffer import constant, read
from tasks.quantize.kernels import kernels
from tasks.quantize.observe import observe
from tasks.quantize.ranges import ranges_for
from tasks.quantize.recipe import recipe_of
from tasks.quantize.schemes import DynamicInt8, Float16, Float32, Scheme, StaticInt8, WeightOnlyInt8
from tasks.quantize.statistics import Statistics
from tasks.quantize.statistics import merge as merge_statistics
from tasks.quantize.weight_ranges import weight_ranges
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
def source(zoo: Detector) -> bytes:
    return make(zoo, Float32())


@pytest.fixture(scope="module")
def statistics(zoo: Detector, source: bytes, reference_data: Path) -> dict[int, Statistics]:
    images = load_dataset(reference_data / "coco-calib128" / "train2017", None).images[: max(SIZES)]
    pixels = preprocess_shard(images, zoo.spec.image_size, None).pixels
    each = observe(source, pixels, [str(image.image_id) for image in images])
    return {size: merge_statistics(*each[:size]) for size in SIZES}


def test_the_floor_is_for_the_channels_that_were_never_trained(
    zoo: Detector, source: bytes, statistics: dict[int, Statistics]
) -> None:
    tree = read(source)
    scheme = StaticInt8(toolchain="litert_quantizer", calibration_images=8)
    bounds = weight_ranges(source, recipe_of(scheme), ranges_for(scheme, source, statistics[8]))
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
    zoo: Detector, source: bytes, statistics: dict[int, Statistics], toolchain: Any, tmp_path: Path
) -> None:
    storage = ArtifactStorage(str(tmp_path))
    artifact = build_artifact(zoo, StaticInt8(toolchain=toolchain), storage, source, statistics[64])
    assert artifact.audit.mac_share == {"int8": 1.0}
    assert set(artifact.audit.layers) == {layer.name for layer in layers(zoo.spec)}
    assert 4_000_000 < artifact.size_bytes < 4_600_000


def test_the_converter_leaves_four_percent_of_the_real_detector_in_float(zoo: Detector) -> None:
    share = audit(make(zoo, DynamicInt8())).mac_share
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
def reference_ap(zoo: Detector, source: bytes, evaluation: tuple[ImageShard, dict[str, Any]]) -> float:
    return average_precision(zoo, source, evaluation)


@pytest.mark.slow
def test_the_float_detector_has_its_known_accuracy(reference_ap: float) -> None:
    assert reference_ap == pytest.approx(0.2302, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme",
    [
        *(Float16(toolchain=toolchain) for toolchain in TOOLCHAINS),
        *(kind(toolchain=toolchain, granularity=granularity)
          for kind in (DynamicInt8, StaticInt8) for toolchain in TOOLCHAINS for granularity in GRANULARITIES),
        *(StaticInt8(toolchain=toolchain, granularity=granularity, calibration_images=8)
          for toolchain in TOOLCHAINS for granularity in GRANULARITIES),
        *(StaticInt8(input_type=kind, output_type=kind) for kind in ("int8", "uint8")),
        *(WeightOnlyInt8(granularity=granularity) for granularity in GRANULARITIES),
    ],
    ids=lambda scheme: "-".join([scheme.name, *map(str, scheme.axes().values())]),
)  # fmt: skip
def test_every_scheme_of_8_bits_keeps_the_accuracy(
    zoo: Detector,
    source: bytes,
    statistics: dict[int, Statistics],
    evaluation: tuple[ImageShard, dict[str, Any]],
    reference_ap: float,
    scheme: Scheme,
) -> None:
    data = make(zoo, scheme, source, statistics.get(getattr(scheme, "calibration_images", 0)))
    assert average_precision(zoo, data, evaluation) >= reference_ap - BUDGET


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_integer_ends_score_as_float_ends_do(
    zoo: Detector,
    source: bytes,
    statistics: dict[int, Statistics],
    evaluation: tuple[ImageShard, dict[str, Any]],
    kind: Any,
    granularity: Any,
) -> None:
    floats = make(zoo, StaticInt8(granularity=granularity), source, statistics[64])
    integers = make(zoo, StaticInt8(granularity=granularity, input_type=kind, output_type=kind), source, statistics[64])
    expected = average_precision(zoo, floats, evaluation)
    assert average_precision(zoo, integers, evaluation) == pytest.approx(expected, abs=0.003)
