"""One suite for both databases: two variants side by side."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from results.comparison import compare
from results.store import Store
from results.sweep_record import variant_key
from tasks.errors import UserMistake
from tasks.identity import key_of
from tests.results import samples

REFERENCE, FLOAT16, DYNAMIC, STATIC = (measured.variant.label for measured in samples.MEASURED)


def test_two_variants_stand_side_by_side_with_what_the_second_needs_of_the_first(store: Store, engine: Engine) -> None:
    samples.fill(store)
    found = compare(engine, DYNAMIC, STATIC)
    assert (found["first"], found["second"], found["sweep"]) == (DYNAMIC, STATIC, "sample")
    assert (found["first_ap"], found["second_ap"], found["second_ap_loss"]) == (0.49, 0.4, pytest.approx(0.1))
    assert found["latency_ratio"] == pytest.approx(0.5 / 0.8)
    assert found["latency_ratio_low"] < 0.5 / 0.8 < found["latency_ratio_high"]
    assert (found["throughput_ratio"], found["size_ratio"], found["peak_memory_ratio"]) == (
        pytest.approx(1.6), 1.0, 1.0,
    )  # fmt: skip
    assert found["measured"] is None
    assert found["verdict"].startswith(f"{STATIC} is 60.0 % faster than {DYNAMIC} [")
    assert found["verdict"].endswith("] (timed beside the reference)")


def test_what_was_timed_in_turn_outweighs_what_was_derived_and_is_turned_around_if_need_be(
    store: Store, engine: Engine
) -> None:
    samples.fill(store)
    found = compare(engine, STATIC, FLOAT16)
    measured = found["measured"]
    assert [measured[name] for name in ("first_ms_p50", "second_ms_p50", "ratio", "ratio_low", "ratio_high")] == [
        18.0, 20.0, 1.12, 1.10, 1.14,
    ]  # fmt: skip
    assert (measured["rounds"], measured["pairs"], measured["noisy"]) == (2, 3, "")
    assert measured["host"] == samples.HOST.fingerprint
    assert found["verdict"] == f"{STATIC} is 12.0 % faster than {FLOAT16} [10.0, 14.0] (timed in turn)"
    turned = compare(engine, FLOAT16, STATIC)
    assert turned["verdict"] == found["verdict"]
    assert turned["measured"]["ratio"] == pytest.approx(1 / 1.12)
    assert turned["measured"]["ratio_low"] == pytest.approx(1 / 1.14)
    assert (turned["measured"]["first_ms_p50"], turned["measured"]["second_ms_p50"]) == (20.0, 18.0)


def test_the_latest_direct_comparison_counts_in_whichever_order(store: Store, engine: Engine) -> None:
    samples.fill(store)
    later = replace(samples.COMPARISON, ratio=1.5, ratio_low=1.4, ratio_high=1.6)
    samples.put_comparison(store, later, samples.FLOAT16, samples.STATIC, key="later")
    assert compare(engine, FLOAT16, STATIC)["measured"]["ratio"] == 1.5
    assert compare(engine, STATIC, FLOAT16)["measured"]["ratio"] == pytest.approx(1 / 1.5)


def test_a_direct_comparison_of_another_artifact_is_none_of_these_two(store: Store, engine: Engine) -> None:
    samples.fill(store)
    rebuilt = samples.artifact("rebuilt")
    store.put_artifact("rebuilt", samples.DETECTOR, samples.DYNAMIC.scheme, {}, rebuilt, 1.0)
    store.put_comparison(
        "other", (DYNAMIC, rebuilt, {}), (STATIC, samples.artifact(STATIC), {}), samples.HOST, samples.COMPARISON
    )
    assert compare(engine, DYNAMIC, STATIC)["measured"] is None


def test_noisy_runs_make_no_winner(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    samples.measure(store, sweep, replace(samples.MEASURED[2], noisy=samples.NOISE))
    found = compare(engine, DYNAMIC, STATIC)
    noise = "; ".join(samples.NOISE)
    assert (found["first_noisy"], found["second_noisy"]) == (noise, "")
    assert found["verdict"] == (f"no difference can be told: noisy when timed beside the reference: {DYNAMIC}: {noise}")
    samples.put_comparison(store, replace(samples.COMPARISON, noisy=samples.NOISE[:1]))
    found = compare(engine, STATIC, FLOAT16)
    assert found["measured"]["noisy"] == samples.NOISE[0]
    assert f"(timed beside the reference; noisy when timed in turn: {samples.NOISE[0]})" in found["verdict"]


def test_latencies_of_different_hosts_are_never_compared(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    samples.measure(store, sweep, samples.moved(samples.MEASURED[3], samples.OTHER_HOST))
    with pytest.raises(UserMistake, match="latencies of different hosts are never compared; add --measure"):
        compare(engine, DYNAMIC, STATIC)
    found = compare(engine, STATIC, FLOAT16)
    unknown = ("latency_ratio", "latency_ratio_low", "load_ratio", "peak_memory_ratio", "throughput_ratio")
    assert {found[name] for name in unknown} == {None}
    assert found["size_ratio"] == 1.0
    assert found["verdict"].endswith("(timed in turn)")


def test_variants_that_share_a_latency_have_no_difference_to_derive(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    keys = {name: key_of(name, STATIC) for name in ("request", "accuracy", "latency")}
    store.settle_variant(
        sweep, variant_key(samples.DETECTOR, samples.THREADS), "done",
        **{f"{name}_key": key for name, key in keys.items()},
    )  # fmt: skip
    found = compare(engine, STATIC, samples.THREADS.label)
    assert found["latency_ratio"] is None
    assert "they share their structure and so one latency" in found["verdict"]


def test_a_variant_without_a_latency_is_told_as_such(store: Store, engine: Engine) -> None:
    samples.fill(store)
    found = compare(engine, samples.PER_TENSOR.label, STATIC)
    assert found["verdict"] == (
        f"no difference can be told: {samples.PER_TENSOR.label} has no latency, its status is failed"
    )
    assert (found["latency_ratio"], found["size_ratio"], found["first_ap"]) == (None, None, None)


def test_one_variant_is_not_compared_with_itself(store: Store, engine: Engine) -> None:
    samples.fill(store)
    with pytest.raises(UserMistake, match="both names stand for litert-static_int8"):
        compare(engine, STATIC, samples.artifact(STATIC).sha256[:12])
