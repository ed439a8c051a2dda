"""The real detector on real COCO images, from the zoo's file to the rows."""

import json

import pytest

from cluster.lanes import TENSORFLOW
from orchestrator.cli.sweep import prepared
from orchestrator.progress import PlainProgress
from orchestrator.spec import load_spec
from orchestrator.sweep import Sweep
from results import queries
from results.connect import open_database
from tasks.coco.preprocess import preprocess_shard
from tasks.detect import detect_shard
from tasks.detector.weights import Detector
from tasks.score import score
from tasks.types import Postprocessing, RuntimeSettings
from tests.command import quantsweep

SPEC = """
name: real
detector: detector.safetensors
evaluation: {{images: {data}/coco-mini/val2017, annotations: {data}/coco-mini/annotations/instances_val2017.json}}
calibration: {{images: {data}/coco-calib128/train2017}}
budget: {{max_loss: 0.01}}
latency: {{max_seconds: 1, retries: 0}}
space:
  - {{scheme: float32}}
  - {{scheme: static_int8, toolchain: [converter, litert_quantizer], calibration_images: 64}}
"""

MORE = """\
  - {{scheme: float16}}
  - {{scheme: dynamic_int8, toolchain: [converter, litert_quantizer]}}
  - {{scheme: static_int8, toolchain: [converter, litert_quantizer], granularity: per_tensor, calibration_images: 64}}
"""
FLOAT32_AP, TOLERANCE = 0.230, 0.006
"""AP of the de-quantized zoo detector on these 80 images, measured while designing with three runtimes."""


@pytest.fixture(
    scope="module", params=[pytest.param("", id="some"), pytest.param(MORE, marks=pytest.mark.slow, id="more")]
)
def more(request):
    """The space without and with what takes longer."""
    return request.param


@pytest.fixture(scope="module")
def place(reference_data, more, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    model = reference_data / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite"
    assert quantsweep("model", "import", model, "--out", folder / "detector.safetensors").code == 0
    (folder / "spec.yaml").write_text((SPEC + more).format(data=reference_data))
    return folder


@pytest.fixture(scope="module")
def rows(place, ray_executor):
    plan = prepared(load_spec(place / "spec.yaml"), str(place / "artifacts"))
    engine = open_database(str(place / "results.db"))
    outcome = Sweep(plan, engine, PlainProgress()).run(ray_executor)
    assert outcome.failed == 0
    return {row["variant"]: row for row in queries.leaderboard(engine, outcome.sweep_key)}


def test_float32_detects_as_well_as_measured_elsewhere(rows):
    assert rows["litert-float32-converter-t1"]["ap"] == pytest.approx(FLOAT32_AP, abs=TOLERANCE)


def test_static_int8_of_both_toolchains_and_granularities_is_within_a_point_of_float32(rows, more):
    static = [row for row in rows.values() if row["scheme"] == "static_int8"]
    assert len(static) == (4 if more else 2)
    assert all(abs(row["ap_loss"]) <= 0.010 and row["int8_mac_share"] == 1 for row in static)


def test_no_scheme_falls_silently_apart(rows, more):
    assert len(rows) == (8 if more else 3)
    assert all(abs(row["ap_loss"]) <= 0.010 for row in rows.values())


def _keras_statistics(detector, files, truth):
    shard = preprocess_shard(files, detector.spec.image_size, None)
    data, settings = detector.to_bytes(), RuntimeSettings("keras")
    return score(truth, detect_shard(data, settings, detector.spec, shard, Postprocessing()), "pycocotools").statistics


def test_the_keras_build_has_the_same_float32_ap(rows, place, ray_executor):
    plan = prepared(load_spec(place / "spec.yaml"), str(place / "artifacts"))
    detector, evaluation = Detector.load(place / "detector.safetensors"), plan.evaluation
    ref = ray_executor.submit(
        TENSORFLOW, "keras", _keras_statistics, detector, evaluation.images, evaluation.ground_truth()
    )
    statistics = ray_executor.result(ray_executor.wait([ref]))
    assert rows["litert-float32-converter-t1"]["ap"] == pytest.approx(statistics[0], abs=1e-3)


def test_exported_detections_score_the_same_in_plain_pycocotools(rows, place, reference_data):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(reference_data / "coco-mini" / "annotations" / "instances_val2017.json"))
    for label in rows:
        out = place / f"{label}.json"
        assert (
            quantsweep("results", "export", "--detections", label, "--out", out, "--db", place / "results.db").code == 0
        )
        evaluation = COCOeval(truth, truth.loadRes(json.loads(out.read_text())), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        stored = json.loads(quantsweep("results", "show", label, "--json", "--db", place / "results.db").out)
        stored = stored[0] if isinstance(stored, list) else stored
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small",
                 "ar_medium", "ar_large")  # fmt: skip
        assert [stored[name] for name in names] == pytest.approx(list(evaluation.stats), abs=1e-12)
