"""What equalization is for: a detector that one scale a tensor ruins finds its objects again."""

import numpy as np
import pytest

from tasks.coco.dataset import Dataset, load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.coco.synthetic import write_synthetic
from tasks.detect import detect_shard
from tasks.detector.demo import demo_detector
from tasks.detector.weights import Detector
from tasks.quantize.artifact import make
from tasks.quantize.observe import observe
from tasks.quantize.schemes import Float32, StaticInt8
from tasks.quantize.statistics import merge
from tasks.quantize.transforms.base import transformed
from tasks.score import merge as merge_detections
from tasks.score import score
from tasks.types import ImageShard, Postprocessing, RuntimeSettings
from tests.tasks.quantize.transforms.spoiling import spoiled

CALIBRATION = 16


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, ImageShard]:
    folder = tmp_path_factory.mktemp("synthetic")
    made = write_synthetic(folder, images=60, seed=21)
    dataset = load_dataset(made.images, made.annotations)
    return dataset, preprocess_shard(dataset.images, demo_detector().spec.image_size, None)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    made = write_synthetic(tmp_path_factory.mktemp("calibration"), images=CALIBRATION, seed=22, first_id=1001)
    images = load_dataset(made.images, None).images
    return preprocess_shard(images, demo_detector().spec.image_size, None).pixels


def static_ap(
    detector: Detector, transform: str, evaluation: tuple[Dataset, ImageShard], calibration: np.ndarray
) -> float:
    """AP of a per-tensor static int8 build."""
    dataset, images = evaluation
    source = make(transformed(detector, transform), Float32(transform=transform))
    scheme = StaticInt8(granularity="per_tensor", calibration_images=CALIBRATION, transform=transform)
    statistics = merge(*observe(source, calibration, [str(index) for index in range(CALIBRATION)]))
    found = detect_shard(
        make(detector, scheme, source, statistics), RuntimeSettings(), detector.spec, images, Postprocessing()
    )
    return score(dataset.ground_truth(), merge_detections([found])).statistics[0]


@pytest.mark.slow
def test_equalization_restores_a_spoiled_detector_and_does_no_harm_to_another(
    evaluation: tuple[Dataset, ImageShard], calibration: np.ndarray
) -> None:
    detector = demo_detector()
    bad = spoiled(detector)
    as_it_was = static_ap(detector, "none", evaluation, calibration)
    assert as_it_was > 0.4
    assert static_ap(detector, "equalized", evaluation, calibration) > as_it_was - 0.02
    assert static_ap(bad, "none", evaluation, calibration) < 0.1 * as_it_was
    assert static_ap(bad, "equalized", evaluation, calibration) > as_it_was - 0.02
