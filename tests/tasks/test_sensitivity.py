"""What quantizing one layer alone does."""

import math

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.identity import sha256_of
from tasks.quantize.artifact import make
from tasks.quantize.observe import observe
from tasks.quantize.schemes import Float32, StaticInt8, WeightOnlyInt8
from tasks.quantize.statistics import merge
from tasks.sensitivity import probe_layer, sqnr_db
from tasks.types import ImageShard, Postprocessing
from tests.detectors import tiny_detector


def test_the_ratio_is_that_of_powers_in_decibels():
    signal = np.array([3.0, 4.0], np.float32)
    assert sqnr_db(signal, signal + np.float32(0.5)) == pytest.approx(10 * np.log10(25 / 0.5))
    assert sqnr_db(signal, 2 * signal) == pytest.approx(0.0)


def test_equal_outputs_have_no_noise():
    assert sqnr_db(np.ones(3, np.float32), np.ones(3, np.float32)) == math.inf


@pytest.fixture(scope="module")
def detector():
    return tiny_detector()


@pytest.fixture(scope="module")
def source(detector):
    return make(detector, Float32())


@pytest.fixture(scope="module")
def images(detector):
    side = detector.spec.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    return ImageShard(np.arange(2), np.full((2, 2), side, np.int32), pixels, sha256_of(pixels.tobytes()))


@pytest.mark.parametrize("layer", ["Conv2d_0", "Conv2d_3_depthwise", "BoxPredictor_1_scores"])
def test_one_layer_quantized_leaves_the_outputs_near_and_not_equal(detector, source, images, layer):
    statistics = merge(*observe(source, images.pixels, ["one", "two"]))
    scheme = StaticInt8(toolchain="litert_quantizer")
    found = probe_layer(detector, scheme, layer, source, statistics, images, (), {}, Postprocessing())
    assert found.layer == layer
    assert 5 < found.sqnr_db < math.inf
    assert found.sqnr_db == min(found.sqnr_boxes_db, found.sqnr_scores_db)
    table = layers(detector.spec)
    assert found.mac_share == next(item.macs for item in table if item.name == layer) / sum(item.macs for item in table)
    assert (found.ap, found.ap_loss) == (None, None)


def test_a_head_of_scores_does_not_touch_the_boxes(detector, source, images):
    found = probe_layer(
        detector, WeightOnlyInt8(), "BoxPredictor_0_scores", source, None, images, (), {}, Postprocessing()
    )
    assert found.sqnr_boxes_db == math.inf
    assert found.sqnr_scores_db < math.inf
