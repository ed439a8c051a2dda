"""Each estimator chooses the range that its definition names."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.quantize.estimators import SMOOTHING, Grid, check_estimator, estimator_of
from tasks.quantize.observe import image_statistics
from tasks.quantize.statistics import TensorStatistics, merge

BYTE = Grid(bits=8, symmetric=False)
SYMMETRIC = Grid(bits=8, symmetric=True)
SHORT = Grid(bits=16, symmetric=True)
NAMES = ("min_max", "moving_average", "mean_min_max", "percentile_99_9", "mse", "histogram", "entropy")

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def statistics_of(*images: np.ndarray | Sequence[float]) -> TensorStatistics:
    parts = [image_statistics(f"{index:04}", ("x",), [np.array(x, np.float32)]) for index, x in enumerate(images)]
    return merge(*parts).tensor("x")


def normal(size: int = 50_000, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, size)


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0)


@pytest.mark.parametrize("grid", [BYTE, SYMMETRIC, SHORT], ids=["int8", "symmetric int8", "int16"])
@pytest.mark.parametrize("name", [*NAMES, "percentile_50_1", "percentile_100"])
@given(images=st.lists(st.lists(floats, min_size=1, max_size=30), min_size=1, max_size=3))
@example(images=[[0.0]])
@example(images=[[5.0]])
@example(images=[[-5.0, -5.0], [-5.0]])
@example(images=[[0.0, 0.0, 0.0, 0.0, 1.0]])
@example(images=[[-3.4e38, 3.4e38]])
@example(images=[[1e-45], [-1e-45]])
@example(images=[[-3.0, -1.0]])
def test_ranges_lie_within_the_values_seen_and_reach_towards_zero(
    name: str, grid: Grid, images: list[list[float]]
) -> None:
    statistics = statistics_of(*images)
    low, high = estimator_of(name)(statistics, grid)
    assert statistics.low <= low <= high <= statistics.high
    assert low <= max(0, statistics.low)
    assert high >= min(0, statistics.high)
    assert (low < high) == (statistics.low < statistics.high)


def test_min_max_clips_nothing() -> None:
    assert estimator_of("min_max")(statistics_of([1.0, -2.0], [7.0, 0.5]), BYTE) == (-2, 7)


def test_moving_average_weighs_later_images_more() -> None:
    ends = [(-1.0, 2.0), (-4.0, 8.0), (-2.0, 3.0), (-0.5, 11.0)]
    low, high = ends[0]
    for next_low, next_high in ends[1:]:
        low, high = SMOOTHING * low + (1 - SMOOTHING) * next_low, SMOOTHING * high + (1 - SMOOTHING) * next_high
    assert estimator_of("moving_average")(statistics_of(*ends), BYTE) == pytest.approx((low, high))


def test_moving_average_is_that_of_litert_quantizer() -> None:
    from litert_quantizer.utils.qsv_utils import moving_average_update

    ends = normal(20, 3.0).reshape(10, 2)
    theirs: dict[str, np.ndarray] = {}
    for pair in ends:
        new = {"min": pair.min().reshape(1), "max": pair.max().reshape(1)}
        theirs = moving_average_update(theirs, new) if theirs else new
    low, high = estimator_of("moving_average")(statistics_of(*ends), BYTE)
    assert (low, high) == pytest.approx((theirs["min"].item(), theirs["max"].item()), rel=1e-6)


def test_mean_min_max_weighs_all_images_alike() -> None:
    ends = [(-1.0, 2.0), (-4.0, 8.0), (-2.0, 3.0), (-0.5, 11.0)]
    assert estimator_of("mean_min_max")(statistics_of(*ends), BYTE) == pytest.approx((-7.5 / 4, 6))


@pytest.mark.parametrize("share", [99.9, 99, 90, 60])
def test_percentiles_are_those_of_the_values(share: float) -> None:
    values = normal() + 0.3
    # Few values lie in the tails, so that neighbours are some bins apart.
    width = 0.03
    name = f"percentile_{share}".replace(".", "_")
    two_sided = np.percentile(values, [(100 - share) / 2, (100 + share) / 2])
    low, high = estimator_of(name)(statistics_of(values), BYTE)
    assert (low, high) == pytest.approx((min(two_sided[0], 0), max(two_sided[1], 0)), abs=width)
    bound = np.percentile(np.abs(values), share)
    assert estimator_of(name)(statistics_of(values), SYMMETRIC) == pytest.approx((-bound, bound), abs=width)
    above = relu(values)
    assert estimator_of(name)(statistics_of(above), BYTE) == pytest.approx((0, np.percentile(above, share)), abs=width)
    assert estimator_of(name)(statistics_of(-above), BYTE) == pytest.approx(
        (np.percentile(-above, 100 - share), 0), abs=width
    )


def test_the_hundredth_percentile_clips_nothing() -> None:
    statistics = statistics_of(normal())
    assert estimator_of("percentile_100")(statistics, BYTE) == (statistics.low, statistics.high)


def test_a_tensor_of_zeros_but_for_a_few_values_is_not_cut_to_nothing() -> None:
    values = np.zeros(10_000)
    values[0] = 3.0
    assert estimator_of("percentile_99")(statistics_of(values), BYTE) == (0, 3)


def squared_error(values: np.ndarray, low: float, high: float, grid: Grid) -> float:
    """What rounding to the grid of a range really does."""
    if grid.symmetric:
        high = max(-low, high)
        low = -high
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / grid.steps
    zero = round(-low / step)
    rounded = np.clip(np.round(values / step), -zero, grid.steps - zero) * step
    return float(((values - rounded) ** 2).sum())


OUTLIERS = np.concatenate([normal(), [40.0, -25.0]])
DISTRIBUTIONS = {
    "normal": normal(),
    "outliers": OUTLIERS,
    "relu": relu(normal()),
    "relu of outliers": relu(OUTLIERS),
    "saturated": np.clip(normal(scale=4), 0, 6),
    "below zero": -np.abs(OUTLIERS) - 1,
    "skewed": np.random.default_rng(1).gamma(1, 1, 50_000) - 0.2,
}


@pytest.mark.parametrize("grid", [BYTE, SYMMETRIC], ids=["int8", "symmetric int8"])
@pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_mse_has_nearly_the_least_error_of_all_ranges(values: np.ndarray, grid: Grid) -> None:
    shares = np.linspace(0.02, 1, 50)
    candidates = itertools.product(values.min() * shares, values.max() * shares)
    least = min(squared_error(values, low, high, grid) for low, high in candidates)
    found = squared_error(values, *estimator_of("mse")(statistics_of(values), grid), grid)
    assert found <= 1.03 * least


def test_mse_clips_outliers_and_min_max_does_not() -> None:
    low, high = estimator_of("mse")(statistics_of(OUTLIERS), BYTE)
    assert -25 < low < -3
    assert 3 < high < 40


@pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_histogram_chooses_the_range_of_the_observer_of_torchao(values: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    observer = pytest.importorskip("torchao.quantization.pt2e.observer").HistogramObserver(dtype=torch.quint8)
    observer(torch.from_numpy(values.astype(np.float32)))
    theirs = [float(end) for end in observer._non_linear_param_search()]
    # Its 2048 bins are others than ours, so a value may be one bin further on, and an end by two.
    tolerance = 2.5 * (values.max() - values.min()) / 2048
    low, high = min(theirs[0], 0.0), max(theirs[1], 0.0)
    assert estimator_of("histogram")(statistics_of(values), BYTE) == pytest.approx(
        (max(low, values.min()), min(high, values.max())), abs=tolerance
    )


def test_histogram_clips_the_tails_of_a_bell() -> None:
    # What the test above compares is no min_max in disguise.
    low, high = estimator_of("histogram")(statistics_of(np.random.default_rng(3).laplace(0, 1, 200_000)), BYTE)
    assert low == pytest.approx(-11.19, abs=0.05)
    assert high == pytest.approx(10.39, abs=0.05)


def divergence(values: np.ndarray, edges: np.ndarray, stop: int, levels: int) -> float:
    """KL(P || Q) as Migacz writes it, bin by bin, for magnitudes up to edges[stop]."""
    counts = np.histogram(values, edges)[0].astype(float)
    counts[0] = counts[1]
    p = counts[:stop].copy()
    p[-1] += counts[stop:].sum()
    q = np.zeros(stop)
    limits = stop * np.arange(levels + 1) // levels
    for start, end in itertools.pairwise(limits):
        filled = p[start:end] > 0
        q[start:end][filled] = counts[start:end].sum() / max(filled.sum(), 1)
    p, q = p / p.sum(), q / q.sum()
    both = p > 0
    return float("inf") if (q[both] == 0).any() else float((p[both] * np.log(p[both] / q[both])).sum())


@pytest.mark.parametrize(("name", "scale"), [("relu", 1), ("saturated", 1), ("relu of outliers", 0.1)])
def test_entropy_has_the_least_divergence(name: str, scale: float) -> None:
    values = relu(DISTRIBUTIONS[name] * scale).astype(np.float32)
    statistics = statistics_of(values)
    low, high = estimator_of("entropy")(statistics, BYTE)
    bins = len(statistics.histogram)
    chosen = bins if high == statistics.high else int(np.searchsorted(statistics.edges, high))
    least = min(divergence(values, statistics.edges, stop, 256) for stop in {*range(256, bins, 7), bins})
    assert low == 0
    # Each tries some bins only.
    assert divergence(values, statistics.edges, chosen, 256) <= least + 1e-3


def test_entropy_clips_a_long_tail() -> None:
    values = np.concatenate([normal(), np.linspace(5, 40, 30)])
    low, high = estimator_of("entropy")(statistics_of(values), BYTE)
    assert low == pytest.approx(values.min())
    assert 3 < high < 40
    symmetric = estimator_of("entropy")(statistics_of(values), SYMMETRIC)
    assert 3 < symmetric[1] < 40


@pytest.mark.parametrize("name", ["mse", "entropy"])
def test_sixteen_bits_leave_nothing_to_be_gained_by_clipping(name: str) -> None:
    statistics = statistics_of(normal())
    assert estimator_of(name)(statistics, SHORT) == pytest.approx((statistics.low, statistics.high), rel=0.05)


@pytest.mark.parametrize("name", ["mse", "entropy", "percentile_99_9"])
@pytest.mark.parametrize("grid", [BYTE, SYMMETRIC], ids=["int8", "symmetric int8"])
def test_mirrored_values_have_mirrored_ranges(name: str, grid: Grid) -> None:
    low, high = estimator_of(name)(statistics_of(OUTLIERS), grid)
    assert estimator_of(name)(statistics_of(-OUTLIERS), grid) == pytest.approx((-high, -low), rel=0.03)


def test_a_symmetric_grid_does_without_its_least_number() -> None:
    assert (BYTE.steps, SYMMETRIC.steps, SHORT.steps) == (255, 254, 65534)


@pytest.mark.parametrize("name", [*NAMES, "fixed", "percentile_99_99", "percentile_50_5", "percentile_100"])
def test_these_names_are_known(name: str) -> None:
    check_estimator(name)


@pytest.mark.parametrize(
    "name",
    ["", "minmax", "percentile", "percentile_", "percentile_50", "percentile_100_1", "percentile_99_90", "percentile_9",
     "percentile_-60", "percentile_99.9", "percentile_99_9_9", "percentile_0", "percentile_099", "MSE"],
)  # fmt: skip
def test_other_names_are_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match=r"range_estimator is .*; choices: min_max, moving_average, mean_min_max, "):
        check_estimator(name)


def test_fixed_ranges_take_no_statistics() -> None:
    with pytest.raises(ValueError, match="not estimated"):
        estimator_of("fixed")
