"""The real detector on real images scores the same in Keras and in LiteRT."""

import pytest

from tasks.coco.dataset import load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.detect import detect_shard
from tasks.detector.importers import import_detector
from tasks.quantize.artifact import make
from tasks.quantize.schemes import Float32
from tasks.score import merge, score
from tasks.types import Postprocessing, RuntimeSettings


@pytest.mark.slow
@pytest.mark.reference_data
def test_float32_scores_the_published_ap_in_every_runtime(reference_data):
    detector = import_detector(reference_data / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite")
    mini = reference_data / "coco-mini"
    dataset = load_dataset(mini / "val2017", mini / "annotations" / "instances_val2017.json")
    images = preprocess_shard(dataset.images, detector.spec.image_size, None)
    builds = {"litert": make(detector, Float32()), "keras": make(detector, Float32(toolchain="keras"))}
    ap = {}
    for runtime, data in builds.items():
        found = merge([detect_shard(data, RuntimeSettings(runtime), detector.spec, images, Postprocessing())])
        statistics = {scorer: score(dataset.ground_truth(), found, scorer) for scorer in ("hotcoco", "pycocotools")}
        assert statistics["hotcoco"] == statistics["pycocotools"]
        ap[runtime] = statistics["hotcoco"].statistics[0]
    assert ap["litert"] == pytest.approx(0.230, abs=0.006)
    assert ap["litert"] == pytest.approx(ap["keras"], abs=1e-3)
