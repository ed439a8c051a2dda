import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.detector.anchors import anchors
from tasks.detector.boxes import decode
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.training.targets import BACKGROUND, IGNORED, Targets, assign, background_column, shares_inside

# Four squares side by side, a quarter of the image wide.
ROW = np.array([[0.5, x, 0.25, 0.25] for x in (0.125, 0.375, 0.625, 0.875)], np.float32)
ANCHORS = anchors(SSDMobileNetV1Spec(image_size=96))

shares = st.floats(0, 1, width=32)
sides = st.floats(2**-5, 1, width=32)


@st.composite
def drawn_boxes(draw: st.DrawFn) -> np.ndarray:
    drawn = draw(st.lists(st.tuples(shares, shares, sides, sides), max_size=6))
    corners = [[y * (1 - h), x * (1 - w), y * (1 - h) + h, x * (1 - w) + w] for y, x, h, w in drawn]
    return np.array(corners, np.float32).reshape(-1, 4)


def box(center: float, width: float, height: float = 0.25) -> list[float]:
    return [0.5 - height / 2, center - width / 2, 0.5 + height / 2, center + width / 2]


def assigned(*boxes: list[float], columns: list[int] | None = None, crowds: list[bool] | None = None) -> list[int]:
    chosen = np.array(list(range(len(boxes))) if columns is None else columns, np.int64)
    given = None if crowds is None else np.array(crowds, bool)
    return assign(np.array(boxes).reshape(-1, 4), chosen, ROW, given).columns.tolist()


def plain_overlap(anchor: list[float], box: list[float]) -> tuple[float, float]:
    """IoU of an anchor [ycenter, xcenter, height, width] and a box, and the share of the anchor inside the box."""
    top, left = anchor[0] - anchor[2] / 2, anchor[1] - anchor[3] / 2
    bottom, right = anchor[0] + anchor[2] / 2, anchor[1] + anchor[3] / 2
    high = min(bottom, box[2]) - max(top, box[0])
    wide = min(right, box[3]) - max(left, box[1])
    shared = high * wide if high > 0 and wide > 0 else 0.0
    area = anchor[2] * anchor[3]
    return shared / (area + (box[2] - box[0]) * (box[3] - box[1]) - shared), shared / area


def plain_columns(boxes: np.ndarray, crowds: np.ndarray, places: np.ndarray) -> list[int]:
    """What `argmax_matcher` would say, in loops: the place of each anchor's object in the list."""
    table = [[plain_overlap(place, box) for box in boxes.tolist()] for place in places.tolist()]
    found = []
    for row in table:
        best, chosen = 0.0, BACKGROUND
        for index, (overlap, _) in enumerate(row):
            if not crowds[index] and overlap > best:
                best, chosen = overlap, index
        if best < 0.5:
            is_crowded = any(share > 0.5 for index, (_, share) in enumerate(row) if crowds[index])
            chosen = IGNORED if is_crowded else BACKGROUND
        found.append(chosen)
    taken = set()
    for index in range(len(boxes)):
        reached = [row[index][0] for row in table]
        place = reached.index(max(reached))
        if not crowds[index] and max(reached) > 0 and place not in taken:
            taken.add(place)
            found[place] = index
    return found


def is_clear_cut(boxes: np.ndarray, places: np.ndarray) -> bool:
    """Whether rounding cannot change the answer: no value on the border, no two equal ones."""
    table = np.array([[plain_overlap(place, box) for box in boxes.tolist()] for place in places.tolist()])
    if not len(boxes):
        return True
    overlap = table[..., 0]
    gaps = [np.diff(np.sort(overlap, axis=axis), axis=axis) for axis in (0, 1)]
    top_gaps = [gaps[0][-1:], gaps[1][:, -1:][overlap.max(axis=1) > 0]]
    return bool(min([np.abs(table - 0.5).min(), *(gap.min() for gap in top_gaps if gap.size)]) > 1e-5)


def test_an_image_without_objects_is_all_background() -> None:
    targets = assign(np.empty((0, 4)), np.empty(0, np.int64), ROW)
    assert targets.columns.tolist() == [BACKGROUND] * 4
    assert not targets.codes.any()


def test_an_object_on_an_anchor_is_matched_with_that_anchor_alone() -> None:
    assert assigned(box(0.375, 0.25), columns=[7]) == [BACKGROUND, 7, BACKGROUND, BACKGROUND]


def test_an_anchor_that_overlaps_by_half_is_matched_and_one_that_overlaps_less_is_not() -> None:
    # Anchors of the same place, of which the object fills 1/2 and 0.45; a third takes the forced match. The sides are
    # powers of two, so that the first overlap is exactly 1/2.
    wide = np.array([[0.5, 0.5, 0.25, 0.5], [0.5, 0.5, 0.25, 0.25 / 0.45], [0.5, 0.5, 0.25, 0.25]], np.float32)
    targets = assign(np.array([box(0.5, 0.25)]), np.array([3]), wide)
    assert targets.columns.tolist() == [3, BACKGROUND, 3]


def test_an_object_that_no_anchor_overlaps_by_half_still_takes_its_best_one() -> None:
    assert assigned(box(0.6, 0.05, 0.05), columns=[2]) == [BACKGROUND, BACKGROUND, 2, BACKGROUND]


def test_an_object_that_overlaps_no_anchor_takes_none() -> None:
    outside = [0.9, 0.1, 0.95, 0.2]
    assert assigned(outside) == [BACKGROUND] * 4


def test_an_anchor_takes_the_object_that_it_overlaps_most() -> None:
    # Each object is forced on an anchor at its side; the one between lies nearer to the second.
    three = np.array([[0.5, x, 0.25, 0.25] for x in (0.3, 0.375, 0.45)], np.float32)
    both = np.array([box(0.32, 0.25), box(0.42, 0.25)])
    assert assign(both, np.array([0, 1]), three).columns.tolist() == [0, 1, 1]
    assert assigned(box(0.375, 0.25), box(0.64, 0.25)) == [BACKGROUND, 0, 1, BACKGROUND]


def test_a_forced_match_outranks_a_better_overlap_of_another_object() -> None:
    # Both anchors are the large object's; it is forced on the first, and the small one, listed last, on the second.
    two = np.array([[0.5, 0.4, 0.2, 0.2], [0.5, 0.45, 0.2, 0.2]], np.float32)
    large, small = box(0.41, 0.2, 0.2), box(0.5, 0.04, 0.04)
    assert assign(np.array([large]), np.array([0]), two).columns.tolist() == [0, 0]
    assert assign(np.array([large, small]), np.array([0, 1]), two).columns.tolist() == [0, 1]


def test_of_objects_that_want_the_same_anchor_the_first_has_it() -> None:
    small, exact = box(0.375, 0.05, 0.05), box(0.375, 0.25)
    assert assigned(small, exact)[1] == 0
    assert assigned(exact, small)[1] == 0


def test_the_codes_of_matched_anchors_decode_to_the_object_and_others_are_zero() -> None:
    target = np.array([box(0.36, 0.22, 0.31), box(0.86, 0.3)], np.float32)
    targets = assign(target, np.array([0, 1]), ROW)
    matched = targets.columns != BACKGROUND
    assert targets.columns.tolist() == [BACKGROUND, 0, BACKGROUND, 1]
    np.testing.assert_allclose(decode(targets.codes, ROW)[matched], target, atol=1e-6)
    assert not targets.codes[~matched].any()


def test_a_crowd_is_not_to_be_found_and_hides_the_anchors_that_lie_in_it_by_more_than_half() -> None:
    # Of the third anchor exactly half lies in the crowd.
    crowd = [0.375, 0.0, 0.625, 0.625]
    assert assigned(crowd, columns=[5], crowds=[True]) == [IGNORED, IGNORED, BACKGROUND, BACKGROUND]


def test_an_object_in_a_crowd_is_still_to_be_found() -> None:
    found = assigned([0.0, 0.0, 1.0, 1.0], box(0.375, 0.25), columns=[5, 6], crowds=[True, False])
    assert found == [IGNORED, 6, IGNORED, IGNORED]


def test_the_area_counts_that_lies_in_one_crowd_not_in_all_together() -> None:
    halves = [[0.375, 0.0, 0.625, 0.12], [0.375, 0.12, 0.625, 0.25]]
    assert assigned(*halves, columns=[1, 1], crowds=[True, True])[0] == IGNORED
    thirds = [[0.375, left / 12, 0.625, (left + 1) / 12] for left in range(3)]
    assert assigned(*thirds, columns=[1] * 3, crowds=[True] * 3)[0] == BACKGROUND


def test_the_background_column_is_that_of_class_id_zero_if_there_is_one() -> None:
    assert background_column(SSDMobileNetV1Spec(class_ids=(0, 1, 2))) == 0
    assert background_column(SSDMobileNetV1Spec(class_ids=(3, 0, 2))) == 1
    assert background_column(SSDMobileNetV1Spec(class_ids=(1, 2))) is None


def test_the_share_of_a_box_inside_a_window_is_of_the_boxs_area() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [5, 5, 5, 6]], float)
    windows = np.array([[0, 0, 2, 1], [1, 1, 9, 9]], float)
    assert shares_inside(boxes, windows).tolist() == [[0.5, 0.25], [1, 0], [0, 0]]


@settings(max_examples=60, deadline=None)
@given(boxes=drawn_boxes(), data=st.data())
def test_the_targets_are_those_of_a_plain_reference(boxes: np.ndarray, data: st.DataObject) -> None:
    crowds = np.array(data.draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes))), bool)
    places = ANCHORS[:: data.draw(st.integers(3, 11))]
    if is_clear_cut(boxes, places):
        found = assign(boxes, np.arange(len(boxes)), places, crowds).columns
        assert found.tolist() == plain_columns(boxes, crowds, places)


@settings(max_examples=60, deadline=None)
@given(boxes=drawn_boxes())
def test_each_object_has_an_anchor_unless_another_object_has_all_that_it_wants(boxes: np.ndarray) -> None:
    targets = assign(boxes, np.arange(len(boxes)), ANCHORS)
    wanted = [assign(boxes[[index]], np.array([0]), ANCHORS).columns for index in range(len(boxes))]
    for index, alone in enumerate(wanted):
        assert (targets.columns == index).any() or (targets.columns[alone == 0] >= 0).all()
        assert (alone == 0).any()


@settings(max_examples=60, deadline=None)
@given(boxes=drawn_boxes())
def test_codes_decode_to_the_object(boxes: np.ndarray) -> None:
    targets: Targets = assign(boxes, np.arange(len(boxes)), ANCHORS)
    matched = targets.columns >= 0
    np.testing.assert_allclose(decode(targets.codes, ANCHORS)[matched], boxes[targets.columns[matched]], atol=2e-5)
