"""Scenes: what latency is measured on, kept as one file."""

import numpy as np

from tasks.detector.anchors import anchors
from tasks.latency.scene import SCENE_IMAGES, Scene
from tests.tasks.runtimes.tiny_detector import CLASS_IDS, shard, tiny_detector


def test_a_scene_holds_the_first_images_and_what_postprocessing_needs():
    found = Scene.of(shard(SCENE_IMAGES + 3), tiny_detector().spec)
    assert len(found) == len(found.sizes) == SCENE_IMAGES
    np.testing.assert_array_equal(found.pixels, shard(SCENE_IMAGES + 3).pixels[:SCENE_IMAGES])
    np.testing.assert_array_equal(found.anchors, anchors(tiny_detector().spec))
    assert found.class_ids.tolist() == list(CLASS_IDS)


def test_a_scene_has_as_many_images_as_there_are():
    assert len(Scene.of(shard(2), tiny_detector().spec)) == 2
    assert len(Scene.of(shard(0), tiny_detector().spec)) == 0


def test_a_scene_survives_the_way_into_a_file():
    scene = Scene.of(shard(2), tiny_detector().spec)
    found = Scene.from_bytes(scene.to_bytes())
    for name, value in vars(scene).items():
        np.testing.assert_array_equal(getattr(found, name), value)
        assert getattr(found, name).dtype == value.dtype
