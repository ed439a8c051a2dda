"""The anchors are those of TF1's SSD anchor generator."""

from pathlib import Path

import numpy as np
import pytest

from tasks.detector.anchors import anchors, box_shapes
from tasks.detector.importers.tflite_graph import read_graph
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec, feature_map_sizes


@pytest.mark.reference_data
def test_anchors_are_those_stored_in_the_real_tflite(real_tflite: Path) -> None:
    graph = read_graph(real_tflite.read_bytes(), "real")
    postprocess = next(op for op in graph.operations if op.name == "TFLite_Detection_PostProcess")
    stored = graph.tensors[postprocess.inputs[2]]
    made = anchors(SSDMobileNetV1Spec(depth_multiplier=0.75))
    # The file holds them as uint8: ours, stored alike, are the same bytes.
    quantized = np.round(made / stored.scales[0] + stored.zero_points[0])
    np.testing.assert_array_equal(quantized.ravel(), stored.content)
    assert np.abs(stored.values() - made).max() <= stored.scales[0] / 2 * 1.001


def test_finest_map_has_a_small_square_and_two_oblongs() -> None:
    finest = anchors(SSDMobileNetV1Spec())[:3]
    wide = 0.2 * np.sqrt(2)
    np.testing.assert_allclose(finest[:, :2], np.full((3, 2), 0.5 / 19), rtol=1e-6)
    np.testing.assert_allclose(finest[:, 2:], [[0.1, 0.1], [wide / 2, wide], [wide, wide / 2]], rtol=1e-6)


def test_scale_of_the_additional_anchor_lies_between_two_maps_and_one_after_the_last() -> None:
    shapes = box_shapes(SSDMobileNetV1Spec())
    assert shapes[1][-1] == (pytest.approx(np.sqrt(0.35 * 0.5)), 1.0)
    assert shapes[5][-1] == (pytest.approx(np.sqrt(0.95)), 1.0)


def test_locations_run_row_by_row_and_anchors_within_them() -> None:
    spec = SSDMobileNetV1Spec(image_size=64, extra_depths=(64,))
    made, size = anchors(spec), feature_map_sizes(spec)[0]
    first_map = made[: size**2 * 3].reshape(size, size, 3, 4)
    assert (np.ptp(first_map[..., 0], axis=(1, 2)) == 0).all()
    assert (np.ptp(first_map[..., 1], axis=(0, 2)) == 0).all()
    assert (np.diff(first_map[:, 0, 0, 0]) > 0).all()
    assert (np.ptp(first_map[..., 2:], axis=(0, 1)) == 0).all()


@pytest.mark.parametrize("settings", [AnchorSpec(), AnchorSpec(0.1, 0.8, (1.0, 2.0), 0.0, False)])
@pytest.mark.parametrize("image_size", [96, 300])
def test_each_anchor_has_its_row(settings: AnchorSpec, image_size: int) -> None:
    spec = SSDMobileNetV1Spec(image_size=image_size, anchors=settings)
    rows = sum(size**2 * spec.anchors_per_location(index) for index, size in enumerate(feature_map_sizes(spec)))
    made = anchors(spec)
    assert made.shape == (rows, 4)
    assert made.dtype == np.float32
    assert (made[:, :2] > 0).all()
    assert (made[:, :2] < 1).all()
