"""The box code and its inverse, and the overlap of boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.detector.boxes import decode, encode, iou

_SIDES = st.floats(1 / 64, 1.5, width=32)
_PLACES = st.floats(0, 1, width=32)


@st.composite
def corner_boxes(draw: st.DrawFn, count: int) -> np.ndarray:
    """(count, 4) [ymin, xmin, ymax, xmax] of positive size."""
    low = draw(arrays(np.float32, (count, 2), elements=_PLACES))
    return np.concatenate([low, low + draw(arrays(np.float32, (count, 2), elements=_SIDES))], axis=1)


@st.composite
def anchor_boxes(draw: st.DrawFn, count: int) -> np.ndarray:
    """(count, 4) [ycenter, xcenter, height, width] of positive size."""
    centers = draw(arrays(np.float32, (count, 2), elements=_PLACES))
    return np.concatenate([centers, draw(arrays(np.float32, (count, 2), elements=_SIDES))], axis=1)


@given(corner_boxes(5), anchor_boxes(5))
def test_decoding_an_encoded_box_gives_the_box(boxes: np.ndarray, anchors: np.ndarray) -> None:
    np.testing.assert_allclose(decode(encode(boxes, anchors), anchors), boxes, atol=2e-5)


@given(arrays(np.float32, (2, 3, 4), elements=st.floats(-8, 8, width=32)), anchor_boxes(3))
def test_encoding_a_decoded_box_gives_the_code(code: np.ndarray, anchors: np.ndarray) -> None:
    decoded = decode(code, anchors)
    assert decoded.shape == code.shape
    assert decoded.dtype == np.float32
    # Corners far from the center of a tiny box lose digits, which the code magnifies.
    np.testing.assert_allclose(encode(decoded, anchors), code, atol=2e-3)


def test_code_is_that_of_the_faster_rcnn_box_coder() -> None:
    anchor = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    code = np.array([[1.0, -2.0, 5 * np.log(2), 5 * np.log(0.5)]], np.float32)
    # Center (.5 + .1 * .2, .5 - .2 * .4), sides .2 * 2 and .4 / 2.
    np.testing.assert_allclose(decode(code, anchor), [[0.32, 0.32, 0.72, 0.52]], rtol=1e-6)
    np.testing.assert_allclose(decode(np.zeros((1, 4)), anchor), [[0.4, 0.3, 0.6, 0.7]], rtol=1e-6)


def test_code_of_an_empty_box_is_finite() -> None:
    anchor = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    assert np.isfinite(encode(np.array([[0.3, 0.3, 0.3, 0.3]]), anchor)).all()


@given(corner_boxes(4), corner_boxes(3))
def test_overlap_is_symmetric_and_a_share(first: np.ndarray, second: np.ndarray) -> None:
    overlap = iou(first, second)
    assert overlap.shape == (4, 3)
    assert (overlap >= 0).all()
    assert (overlap <= 1).all()
    np.testing.assert_array_equal(overlap, iou(second, first).T)
    np.testing.assert_allclose(np.diag(iou(first, first)), 1, rtol=1e-5)


@given(corner_boxes(3), st.floats(0.5, 800))
def test_overlap_does_not_depend_on_the_unit(boxes: np.ndarray, factor: float) -> None:
    np.testing.assert_allclose(iou(boxes * factor, boxes * factor), iou(boxes, boxes), atol=1e-4)


def test_known_overlaps() -> None:
    unit = np.array([[0, 0, 1, 1]])
    others = np.array([[0, 0.5, 1, 1.5], [0, 0, 0.5, 0.5], [2, 2, 3, 3], [1, 0, 2, 1], [0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_allclose(iou(unit, others), [[1 / 3, 0.25, 0, 0, 0]], rtol=1e-6)
    empty = np.zeros((1, 4))
    assert iou(empty, empty) == 0
