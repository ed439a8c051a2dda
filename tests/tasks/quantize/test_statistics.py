"""Statistics merge exactly: what comes out depends on the set of images alone."""

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import ArtifactUnreadable
from tasks.quantize.observe import image_statistics
from tasks.quantize.statistics import BINS, Statistics, bin_grid, joined, merge

TENSORS = ("input", "relu6", "logits")
LARGEST = float(np.finfo(np.float32).max)
TINIEST = float(np.finfo(np.float32).smallest_subnormal)

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
elements = st.one_of(floats, st.sampled_from([0.0, -0.0, 6.0, 1.0, -1e-9, TINIEST, -TINIEST, LARGEST, -LARGEST]))
tensors = st.lists(elements, min_size=1, max_size=20)
sets_of_images = st.lists(st.tuples(tensors, tensors, tensors), min_size=2, max_size=6)


def image(key: str, *values: Sequence[float] | np.ndarray) -> Statistics:
    names = TENSORS[: len(values)]
    return image_statistics(key, names, [np.array(part, np.float32) for part in values])


def images(contents: list[tuple[list[float], ...]]) -> list[Statistics]:
    return [image(f"image {index}", *values) for index, values in enumerate(contents)]


@given(contents=sets_of_images)
def test_merging_is_commutative(contents: list[tuple[list[float], ...]]) -> None:
    parts = images(contents)
    assert merge(*parts).to_bytes() == merge(*reversed(parts)).to_bytes()


@given(contents=st.lists(st.tuples(tensors, tensors), min_size=1, max_size=6))
@example(contents=[([0.0], [TINIEST]), ([LARGEST], [-LARGEST])])
def test_joined_tensors_have_the_statistics_of_their_concatenation(contents: list[tuple[list[float], ...]]) -> None:
    seen = merge(*images([(one, other, one + other) for one, other in contents]))
    found, wanted = joined([seen.tensor(name) for name in TENSORS[:2]]), seen.tensor(TENSORS[2])
    assert found.count == wanted.count
    for name in ("minima", "maxima", "edges", "histogram"):
        assert (getattr(found, name) == getattr(wanted, name)).all()


@given(contents=sets_of_images, cut=st.integers(1, 5))
def test_merging_is_associative(contents: list[tuple[list[float], ...]], cut: int) -> None:
    parts = images(contents)
    first, second = parts[: min(cut, len(parts) - 1)], parts[min(cut, len(parts) - 1) :]
    assert merge(merge(*first), merge(*second)).to_bytes() == merge(*parts).to_bytes()


@given(contents=sets_of_images)
@example(contents=[([0.0],), ([TINIEST],), ([LARGEST],), ([-LARGEST],)])
@example(contents=[([5.0],), ([5.0000005],)])
def test_merged_histograms_are_those_of_all_values_at_once(contents: list[tuple[list[float], ...]]) -> None:
    merged = merge(*images(contents))
    together = image(
        "all", *([value for values in contents for value in values[index]] for index in range(len(contents[0])))
    )
    for name in ("counts", "exponents", "firsts", "histograms"):
        assert (getattr(merged, name) == getattr(together, name)).all()


@pytest.mark.parametrize("shards", [1, 2, 7, 128])
def test_any_number_of_shards_gives_the_same_statistics(shards: int) -> None:
    random = np.random.default_rng(0)
    parts = []
    for index in range(128):
        relu6 = np.clip(random.normal(1, 1 + index % 5, 500), 0, 6)
        parts.append(
            image(f"image {index:03}", random.uniform(-1, 1, 300), relu6, random.normal(-5, 1 + index / 9, 400))
        )
    expected = merge(*parts).to_bytes()
    order = random.permutation(128)
    merged = [merge(*(parts[index] for index in shard)) for shard in np.array_split(order, shards)]
    assert merge(*merged).to_bytes() == expected


@given(values=tensors)
@example(values=[5.0])
@example(values=[0.0, 0.0])
@example(values=[-LARGEST, LARGEST])
@example(values=[TINIEST, -TINIEST])
@example(values=[-TINIEST, -LARGEST])
@example(values=[0.0, 6.0])
@example(values=[-1e-9, 100.0])
@example(values=[1000.0, 1000.0001])
def test_every_value_is_counted_in_the_bin_that_holds_it(values: list[float]) -> None:
    found = image("image", values).tensor("input")
    exact = np.array(values, np.float32).astype(np.float64)
    expected = [int(((edge <= exact) & (exact < above)).sum()) for edge, above in itertools.pairwise(found.edges)]
    assert found.histogram.tolist() == expected
    assert found.histogram.sum() == found.count == len(values)
    assert found.edges[0] <= found.low == exact.min()
    assert exact.max() == found.high < found.edges[-1]
    assert found.histogram[0] > 0 < found.histogram[-1]
    assert (np.diff(found.edges) > 0).all()


@given(low=floats, high=floats)
def test_bins_are_as_narrow_as_their_number_allows(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    (exponent,), (first,) = bin_grid(np.array([low], np.float32), np.array([high], np.float32))
    assert int(np.floor(high * 2.0**-exponent)) - first < BINS
    narrower = 2.0 ** -(int(exponent) - 1)
    too_many = int(np.floor(high * narrower)) - int(np.floor(low * narrower)) >= BINS
    assert too_many or exponent == -126 or max(-low, high) * narrower >= 2**22


def test_relu6_fills_three_quarters_of_the_bins() -> None:
    found = image("image", [0.0, 6.0]).tensor("input")
    assert found.edges[0] == 0
    assert found.edges[1] == 1 / 256
    assert len(found.histogram) == 6 * 256 + 1


def test_merging_one_changes_nothing() -> None:
    only = image("image", [1.0, 2.0])
    assert merge(only) is only


def test_an_image_is_counted_once() -> None:
    with pytest.raises(ValueError, match="share images: b"):
        merge(merge(image("a", [1.0]), image("b", [2.0])), image("b", [2.0]))


def test_what_does_not_belong_together_is_not_merged() -> None:
    with pytest.raises(ValueError, match="different tensors"):
        merge(image("a", [1.0]), image("b", [1.0], [2.0]))
    with pytest.raises(ValueError, match="no statistics"):
        merge()


def test_ranges_of_each_image_stay_in_the_order_of_their_keys() -> None:
    merged = merge(image("b", [2.0, 3.0]), image("c", [-1.0]), image("a", [5.0, 4.0]))
    assert merged.images == ("a", "b", "c")
    assert merged.tensor("input").minima.tolist() == [4, 2, -1]
    assert merged.tensor("input").maxima.tolist() == [5, 3, -1]


def test_a_tensor_without_statistics_is_named() -> None:
    with pytest.raises(KeyError, match="'nothing'"):
        image("a", [1.0]).tensor("nothing")


@given(contents=sets_of_images)
def test_statistics_come_back_from_their_bytes(contents: list[tuple[list[float], ...]]) -> None:
    merged = merge(*images(contents))
    data = merged.to_bytes()
    back = Statistics.from_bytes(data)
    for item in dataclasses.fields(Statistics):
        assert np.array_equal(getattr(back, item.name), getattr(merged, item.name))
    assert back.to_bytes() == data


@pytest.mark.parametrize("count", [1, 127, 128, 16_383, 16_384, 2_097_152, 5_000_000])
def test_counts_of_any_size_come_back(count: int) -> None:
    one = image("image", [0.0])
    many = dataclasses.replace(one, counts=one.counts * count, histograms=one.histograms * count)
    assert Statistics.from_bytes(many.to_bytes()).histograms[0, 0] == count


DATA = image("image", [1.0, 2.0], [3.0]).to_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"not statistics",
        lambda data: zlib.compress(b"not safetensors"),
        lambda data: zlib.compress(zlib.decompress(data)[:-1]),
        lambda data: zlib.compress(zlib.decompress(data).replace(b"v1:", b"v0:")),
        lambda data: zlib.compress(zlib.decompress(data).replace(b"minima", b"mimina")),
        lambda data: zlib.compress(zlib.decompress(data)[:-1] + b"\x80"),
    ],
    ids=["empty", "cut", "half", "other", "no tensors", "short", "old format", "lost array", "endless number"],
)
def test_damaged_statistics_are_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ArtifactUnreadable, match="statistics"):
        Statistics.from_bytes(damage(DATA))


@settings(max_examples=200)
@given(place=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(place: int, bit: int) -> None:
    changed = bytearray(DATA)
    changed[place] ^= 1 << bit
    try:
        found = Statistics.from_bytes(bytes(changed))
    except ArtifactUnreadable:
        return
    # Bits of the zlib header that only say how hard it was compressed.
    assert found.to_bytes() == DATA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minima": np.array([[np.nan]], np.float32)}, "finite"),
        ({"minima": np.array([[3.0]], np.float32)}, "above the greatest"),
        ({"maxima": np.array([[200.0]], np.float32)}, "bins do not follow"),
        ({"maxima": np.array([2.0], np.float32)}, r"maxima is float32\(1,\)"),
        ({"counts": np.array([7], np.int64)}, "does not add up"),
        ({"images": ("b", "a")}, r"minima is|sorted"),
        ({"images": ()}, "minima is|images"),
        ({"tensors": ("a", "a")}, "minima is|distinct"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(image("image", [1.0, 2.0]), **change)
