"""One suite for both databases: studies and searches for the best, their verdicts and confirmations."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from results import queries, schema
from results.store import Store
from results.sweep_record import SweepRecord, variant_key
from results.verdict_store import StoredVerdict
from tasks.errors import UserMistake
from tasks.identity import key_of
from tasks.types import LossInterval, Variant, Verdict, VerdictKind
from tests.contracts.test_databases import intervals
from tests.results import samples

NEAREST = ("variant", "budget_loss", "images", "is_partial", "needs")


def key(variant: Variant) -> str:
    return variant_key(samples.DETECTOR, variant)


def rows_by_variant(engine: Engine) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in queries.leaderboard(engine)}


def infeasible(loss: float, low: float, high: float, images: int = 40, level: float = 0.95) -> Verdict:
    return Verdict("infeasible", images, 80, LossInterval(loss, low, high, level, 1000, 0, images), "loses too much")


verdicts = st.builds(
    lambda kind, interval, images, rest, because: Verdict(
        kind, interval.images if interval else images, rest, interval, because
    ),
    kind=st.sampled_from(get_args(VerdictKind)),
    interval=st.none() | intervals,
    images=st.integers(0, 2**31 - 1),
    rest=st.integers(0, 2**31 - 1),
    because=st.text("abc. ", max_size=12),
)

many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(verdict=verdicts, trial=st.none() | st.integers(0, 2**31 - 1), inferred=st.integers(0, 2**62))
def test_a_verdict_is_found_exactly_and_replaces_the_one_before(
    store: Store, verdict: Verdict, trial: int | None, inferred: int
) -> None:
    samples.register(store)
    study = samples.begin(store, kind="study")
    store.put_verdict(study, key(samples.STATIC), verdict, trial, inferred)
    assert store.verdicts_of(study) == {key(samples.STATIC): StoredVerdict(verdict, trial, inferred)}
    assert store.inferred_images(study) == inferred


def test_verdicts_come_in_the_order_of_the_space_and_their_images_add_up(store: Store, engine: Engine) -> None:
    samples.fill(store)
    study = samples.fill_study(store)
    decided = (samples.FLOAT16, samples.DYNAMIC, samples.STATIC, samples.PER_TENSOR)
    assert list(store.verdicts_of(study)) == [key(variant) for variant in decided]
    assert store.verdicts_of(study)[key(samples.STATIC)] == StoredVerdict(samples.PARTIAL, 0, 120)
    assert store.inferred_images(study) == queries.find_sweep(engine, study)["images_inferred"] == 200


def test_a_plain_sweep_has_no_verdicts(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    assert (store.verdicts_of(sweep), store.inferred_images(sweep)) == ({}, 0)
    names = ("verdict", "verdict_images", "verdict_loss", "trial", "confirm_images", "confirm_ap", "confirm_ap_loss")
    assert {row[name] for row in queries.leaderboard(engine) for name in names} == {None}


def test_a_sweep_has_the_key_that_it_had_before_sweeps_had_kinds() -> None:
    record = SweepRecord(
        name="old", spec="name: old", detector_sha256=samples.DETECTOR, dataset_fingerprint=samples.DATASET,
        variants=samples.VARIANTS, reference=samples.REFERENCE, artifacts_url="./artifacts", provenance={"seed": 0},
        budget_metric="AP", budget_max_loss=0.01,
    )  # fmt: skip
    keys = [key(variant) for variant in samples.VARIANTS]
    before = key_of(
        "sweep", "old", "name: old", samples.DETECTOR, samples.DATASET, {"seed": 0}, keys, ("ap", 0.01, False)
    )
    assert record.key == before
    kinds = [replace(record, kind=kind).key for kind in schema.KINDS]
    assert len({*kinds, replace(record, confirm_fingerprint=samples.CONFIRMATION).key}) == 4


def test_status_and_verdict_are_written_together_or_not_at_all(store: Store) -> None:
    study = samples.fill_study(store)
    refused = replace(samples.PARTIAL, images=39)
    with pytest.raises(ValueError, match="on 39 images and its interval on 40"):
        samples.stop(store, study, replace(samples.MEASURED[0], variant=samples.THREADS), refused, 4, 39)
    assert store.statuses(study)[key(samples.THREADS)] == "pending"
    assert key(samples.THREADS) not in store.verdicts_of(study)


def test_what_is_taken_back_has_no_verdict_and_what_is_settled_again_keeps_it(store: Store) -> None:
    study = samples.fill_study(store)
    store.settle_variant(study, key(samples.STATIC), "pending")
    assert key(samples.STATIC) not in store.verdicts_of(study)
    samples.measure(store, study, samples.MEASURED[2])
    assert store.verdicts_of(study)[key(samples.DYNAMIC)] == StoredVerdict(samples.FEASIBLE, 1, 80)


def test_resuming_a_study_keeps_statuses_verdicts_and_confirmations(store: Store, engine: Engine) -> None:
    study = samples.fill_study(store)
    before = store.statuses(study), store.verdicts_of(study)
    samples.begin(store, name="study", kind="study", confirm_fingerprint=samples.CONFIRMATION)
    assert (store.statuses(study), store.verdicts_of(study)) == before
    assert list(before[0].values()) == ["done", "stopped", "done", "stopped", "failed", "pending"]
    assert rows_by_variant(engine)[samples.DYNAMIC.label]["confirm_ap"] == 0.46


@pytest.mark.parametrize("wrong", [{"accuracy_key": "a"}, {"latency_key": None}])
def test_a_stopped_variant_has_a_latency_and_no_accuracy(store: Store, wrong: dict[str, Any]) -> None:
    study = samples.fill_study(store)
    keys = {name: key_of(name.removesuffix("_key"), samples.STATIC.label) for name in ("request_key", "latency_key")}
    with pytest.raises(ValueError, match="stopped variants have the first and not the second"):
        store.settle_variant(study, key(samples.STATIC), "stopped", **(keys | wrong))


def test_deciding_about_what_is_not_there_is_an_error(store: Store) -> None:
    study = samples.fill_study(store)
    with pytest.raises(KeyError, match="has no variant"):
        store.put_verdict(study, "0" * 64, samples.NO_GAIN, None, 0)
    with pytest.raises(KeyError, match="sweep_variants has no row"):
        store.put_confirmation(study, "0" * 64, key_of("accuracy", samples.STATIC.label))


def test_a_partial_verdict_is_shown_as_such_and_never_as_a_score(store: Store, engine: Engine) -> None:
    samples.fill_study(store)
    row = rows_by_variant(engine)[samples.STATIC.label]
    shown = ("status", "verdict", "verdict_images", "verdict_loss", "verdict_loss_low", "verdict_loss_high", "trial")
    assert [row[name] for name in shown] == ["stopped", "infeasible", 40, 0.045, 0.02, 0.07, 0]
    assert row["verdict_because"] == "loses 0.0200 to 0.0700"
    scores = (*schema.STATISTICS[:6], "ap_loss", "ap_loss_low", "images", "detections", "budget_loss", "feasible")
    assert {row[name] for name in scores} == {None}
    assert (row["latency_ratio"], row["size_bytes"]) == (0.5, 7_000_000)


def test_a_variant_that_was_scored_elsewhere_is_not_scored_in_a_study_that_stopped_it(
    store: Store, engine: Engine
) -> None:
    samples.fill(store)
    samples.fill_study(store)
    assert rows_by_variant(engine)[samples.STATIC.label]["ap"] is None


def test_stopped_variants_stand_below_the_scored_ones_the_fastest_first(store: Store, engine: Engine) -> None:
    samples.fill_study(store)
    order = (samples.DYNAMIC, samples.REFERENCE, samples.STATIC, samples.FLOAT16, samples.THREADS, samples.PER_TENSOR)
    assert [row["variant"] for row in queries.leaderboard(engine)] == [variant.label for variant in order]


def test_what_was_stopped_is_not_on_the_front_and_pushes_nobody_off_it(store: Store, engine: Engine) -> None:
    samples.fill_study(store)
    front = [row["variant"] for row in queries.pareto_front(engine)]
    assert front == [samples.DYNAMIC.label, samples.REFERENCE.label]


def test_the_winner_is_confirmed_on_images_of_its_own(store: Store, engine: Engine) -> None:
    samples.fill_study(store)
    rows = rows_by_variant(engine)
    winner, reference = rows[samples.DYNAMIC.label], rows[samples.REFERENCE.label]
    assert (winner["ap"], winner["images"], winner["confirm_ap"], winner["confirm_images"]) == (0.49, 80, 0.46, 20)
    assert winner["confirm_ap_loss"] == pytest.approx(0.02)
    assert (winner["confirm_ap_loss_low"], winner["confirm_ap_loss_high"]) == (-0.01, 0.05)
    assert (reference["confirm_ap"], reference["confirm_ap_loss"], reference["verdict"]) == (0.48, 0.0, None)
    assert queries.find_sweep(engine)["confirm_fingerprint"] == samples.CONFIRMATION


def test_a_confirmation_needs_the_references_on_the_same_images(store: Store, engine: Engine) -> None:
    study = samples.fill_study(store)
    store.put_confirmation(study, key(samples.REFERENCE), key_of("accuracy", samples.REFERENCE.label))
    winner = rows_by_variant(engine)[samples.DYNAMIC.label]
    assert (winner["confirm_ap"], winner["confirm_ap_loss"], winner["confirm_ap_loss_low"]) == (0.46, None, None)


def test_settling_the_winner_again_keeps_its_confirmation(store: Store, engine: Engine) -> None:
    study = samples.fill_study(store)
    samples.measure(store, study, samples.MEASURED[2])
    assert rows_by_variant(engine)[samples.DYNAMIC.label]["confirm_ap"] == 0.46


def test_show_tells_verdict_and_confirmation(store: Store, engine: Engine) -> None:
    samples.fill_study(store)
    found = queries.show(engine, samples.DYNAMIC.label)
    names = ("verdict", "verdict_images", "verdict_all_images", "verdict_level", "inferred", "trial", "confirm_dataset")
    assert [found[name] for name in names] == ["feasible", 80, 80, 0.95, 80, 1, "confirmation set"]
    assert found["decided_at"].endswith("+00:00")
    assert found["confirm_reference_scorer"] is None
    store.confirm_accuracy(key_of("confirmation", samples.DYNAMIC.label), "pycocotools 2.0.11")
    found = queries.show(engine, samples.DYNAMIC.label)
    assert (found["confirm_reference_scorer"], found["confirmed_by"]) == ("pycocotools 2.0.11", None)


def test_what_was_stopped_has_no_detections_and_says_why(store: Store, engine: Engine) -> None:
    samples.fill_study(store)
    told = "has no detections: it was not scored on every image: infeasible, loses 0.0200"
    with pytest.raises(UserMistake, match=told):
        queries.detections_sha256_of(engine, samples.STATIC.label)


def test_a_study_is_found_like_a_sweep_and_tells_its_kind(store: Store, engine: Engine) -> None:
    with pytest.raises(UserMistake, match="quantsweep study SPEC"):
        queries.find_sweep(engine)
    sweep, study = samples.fill(store), samples.fill_study(store)
    assert queries.find_sweep(engine)["sweep_key"] == study
    assert queries.find_sweep(engine, "study")["kind"] == queries.find_sweep(engine, study[:8])["kind"] == "study"
    assert queries.find_sweep(engine, "sample")["sweep_key"] == sweep
    counts = [(row["kind"], row["done"], row["stopped"], row["failed"], row["pending"], row["images_inferred"])
              for row in queries.sweeps(engine)]  # fmt: skip
    assert counts == [("study", 2, 2, 1, 1, 200), ("sweep", 4, 0, 1, 1, 0)]


def test_trials_of_studies_are_listed_with_what_they_took(store: Store, engine: Engine) -> None:
    samples.fill(store)
    study = samples.fill_study(store)
    columns = "study_key, kind, trial, variant, verdict, images, all_images, loss, latency_ratio, inferred"
    rows = queries.sql(engine, f"SELECT {columns} FROM study_trials ORDER BY trial")
    assert [list(row.values()) for row in rows] == [
        [study, "study", 0, samples.STATIC.label, "infeasible", 40, 80, 0.045, 0.5, 120],
        [study, "study", 1, samples.DYNAMIC.label, "feasible", 80, 80, 0.01, 0.8, 80],
        [study, "study", 2, samples.FLOAT16.label, "no_gain", 0, 80, None, 0.9, 0],
        [study, "study", 3, samples.PER_TENSOR.label, "unsupported", 0, 80, None, None, 0],
    ]


def test_the_nearest_to_the_budget_come_first_with_what_they_need(store: Store, engine: Engine) -> None:
    samples.register(store)
    study = samples.begin(store, kind="study", budget_max_loss=0.005)
    for measured in (samples.MEASURED[0], samples.MEASURED[2]):
        samples.measure(store, study, measured)
    whole = infeasible(0.01, 0.0055, 0.016, images=80)
    store.put_verdict(study, key(samples.DYNAMIC), whole, trial=0, inferred=80)
    samples.stop(store, study, samples.MEASURED[3], samples.PARTIAL, trial=1, inferred=40)
    assert [tuple(row[name] for name in NEAREST) for row in queries.nearest(engine, study)] == [
        (samples.DYNAMIC.label, pytest.approx(0.01), 80, False,
         "a budget of 0.0100 instead of 0.005 (0.0055 to 0.0160 with 95 %)"),
        (samples.STATIC.label, 0.045, 40, True,
         "a budget of about 0.0450 instead of 0.005, judged by 40 of 80 images (0.0200 to 0.0700 with 99 %)"),
    ]  # fmt: skip
    first, second = queries.nearest(engine)
    assert (first["excess"], second["excess"]) == (pytest.approx(0.005), pytest.approx(0.04))
    assert (first["latency_ratio"], second["latency_ratio"]) == (0.8, 0.5)
    assert queries.nearest(engine, study, limit=1) == [first]


def test_a_full_score_counts_more_than_a_partial_verdict(store: Store, engine: Engine) -> None:
    study = samples.fill_study(store, budget_max_loss=0.02)
    samples.measure(store, study, samples.MEASURED[3])
    (row,) = queries.nearest(engine)
    assert (row["variant"], row["is_partial"], row["budget_loss_low"]) == (samples.STATIC.label, False, None)
    assert row["needs"] == "a budget of 0.1000 instead of 0.02"


def test_a_proposed_budget_is_never_too_small(store: Store, engine: Engine) -> None:
    samples.register(store)
    sweep = samples.begin(store)
    samples.measure(store, sweep, samples.MEASURED[0])
    samples.measure(store, sweep, replace(samples.MEASURED[3], ap=0.47996))
    assert queries.nearest(engine)[0]["needs"] == "a budget of 0.0201 instead of 0.01"


def test_a_bound_that_rounds_to_nothing_has_no_sign(store: Store, engine: Engine) -> None:
    samples.register(store)
    study = samples.begin(store, kind="study")
    samples.stop(store, study, samples.MEASURED[3], infeasible(0.02, -0.00001, 0.04), trial=0, inferred=40)
    assert "(0.0000 to 0.0400 with 95 %)" in queries.nearest(engine)[0]["needs"]


def test_the_interval_of_a_sweep_is_that_of_its_ap_loss(store: Store, engine: Engine) -> None:
    samples.fill(store)
    (row,) = queries.nearest(engine)
    assert (row["variant"], row["budget_loss_low"], row["budget_loss_high"]) == (samples.STATIC.label, 0.07, 0.13)
    assert row["needs"] == "a budget of 0.1000 instead of 0.01 (0.0700 to 0.1300 with 95 %)"


def test_a_relative_budget_is_told_in_shares_of_the_reference(store: Store, engine: Engine) -> None:
    samples.fill(store, budget_metric="AP50", budget_max_loss=0.05, budget_relative=True)
    (row,) = queries.nearest(engine)
    assert row["budget_loss"] == pytest.approx(0.1 / 0.6)
    assert row["needs"] == "a budget of 16.67 % instead of 5 % of the reference's AP50"


def test_what_was_given_up_within_the_budget_needs_the_other_images(store: Store, engine: Engine) -> None:
    samples.register(store)
    study = samples.begin(store, kind="study")
    samples.measure(store, study, samples.MEASURED[0])
    unsettled = replace(infeasible(0.004, -0.01, 0.02), kind="unsettled")
    samples.stop(store, study, samples.MEASURED[3], unsettled, trial=0, inferred=40)
    samples.stop(store, study, samples.MEASURED[1], replace(samples.NO_GAIN, kind="unsettled"), trial=1, inferred=0)
    (row,) = queries.nearest(engine)
    assert row["excess"] == pytest.approx(-0.006)
    assert row["needs"] == (
        "the other 40 images: on 40 of 80 it loses 0.0040 (-0.0100 to 0.0200 with 95 %), and the budget is 0.01"
    )


def test_what_is_noisy_failed_within_the_budget_or_the_reference_is_no_near_miss(store: Store, engine: Engine) -> None:
    study = samples.fill_study(store)
    assert [row["variant"] for row in queries.nearest(engine)] == [samples.STATIC.label]
    noisy = replace(samples.MEASURED[3], noisy=samples.NOISE)
    samples.stop(store, study, noisy, replace(samples.PARTIAL, kind="noisy"), trial=0, inferred=40)
    assert queries.nearest(engine) == []


def test_without_a_budget_nothing_misses_it(store: Store, engine: Engine) -> None:
    samples.fill(store, budget_metric=None, budget_max_loss=None)
    assert queries.nearest(engine) == []
