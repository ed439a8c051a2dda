"""Caps and metadata in a detector's file."""

import numpy as np
import pytest

from tasks.detector.demo import DEMO_FILE, demo_detector
from tasks.detector.weights import Detector, metadata_of, with_metadata
from tasks.errors import ModelMistake


def with_cap(detector: Detector, name: str, cap: np.ndarray) -> Detector:
    return Detector(detector.spec, detector.tensors | {name: cap})


def test_a_detector_without_caps_has_the_bytes_that_it_had_before_there_were_any() -> None:
    assert demo_detector().to_bytes() == DEMO_FILE.read_bytes()


def test_caps_are_kept_in_the_file(small_detector: Detector) -> None:
    cap = np.linspace(0.5, 6, 16, dtype=np.float32)
    capped = with_cap(small_detector, "Conv2d_0/cap", cap)
    again = Detector.from_bytes(capped.to_bytes(), "it")
    np.testing.assert_array_equal(again.tensors["Conv2d_0/cap"], cap)
    assert again.sha256 == capped.sha256 != small_detector.sha256


@pytest.mark.parametrize(
    ("name", "cap", "message"),
    [
        ("Conv2d_0/cap", np.zeros(16, np.float32), "above 0"),
        ("Conv2d_0/cap", np.full(16, -1, np.float32), "above 0"),
        ("Conv2d_0/cap", np.full(16, np.inf, np.float32), "not finite"),
        ("Conv2d_0/cap", np.ones(15, np.float32), r"wants float32\(16,\)"),
        ("Conv2d_0/cap", np.ones(16), "wants float32"),
        ("BoxPredictor_0_boxes/cap", np.ones(12, np.float32), "unknown .*BoxPredictor_0_boxes/cap"),
        ("Conv2d_99/cap", np.ones(16, np.float32), "unknown .*Conv2d_99/cap"),
    ],
)
def test_other_caps_are_refused(small_detector: Detector, name: str, cap: np.ndarray, message: str) -> None:
    with pytest.raises(ModelMistake, match=message):
        with_cap(small_detector, name, cap)


def test_metadata_is_added_and_the_detector_stays_the_same(small_detector: Detector) -> None:
    data = small_detector.to_bytes()
    noted = with_metadata(data, "note", "caffè")
    assert metadata_of(noted, "it")["note"] == "caffè"
    assert metadata_of(data, "it") == {key: value for key, value in metadata_of(noted, "it").items() if key != "note"}
    assert Detector.from_bytes(noted, "it").sha256 == small_detector.sha256


def test_equal_metadata_gives_equal_bytes_in_any_order(small_detector: Detector) -> None:
    data = small_detector.to_bytes()
    one = with_metadata(with_metadata(data, "a", "1"), "b", "2")
    other = with_metadata(with_metadata(data, "b", "2"), "a", "1")
    assert one == other
    assert with_metadata(one, "a", "1") == one
