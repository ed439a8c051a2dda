"""One suite for both databases: trainings, their learning curves, and what was made of them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from results import queries
from results.store import Store
from results.sweep_record import variant_key
from tasks.errors import TrainingFailed, UserMistake, WorkerLost
from tasks.identity import key_of
from tasks.quantize.schemes import QatInt8
from tasks.types import Failure, RuntimeSettings, TrainingEnd, TrainingPoint, TrainingProgress, Variant
from tests.results import samples

KEY = key_of("a training")

LOSS = st.floats(0, 1e6)
NOTHING_YET = st.none() | LOSS
points = st.builds(
    TrainingPoint,
    step=st.integers(0, 2**31 - 1),
    held_out_loss=LOSS,
    loss=NOTHING_YET,
    box_loss=NOTHING_YET,
    score_loss=NOTHING_YET,
    distillation_loss=NOTHING_YET,
    learning_rate=NOTHING_YET,
    images_per_second=NOTHING_YET,
    seconds=LOSS,
    core_seconds=LOSS,
)


@st.composite
def progresses(draw: st.DrawFn) -> TrainingProgress:
    curve = draw(st.lists(points, min_size=1, max_size=6, unique_by=lambda point: point.step))
    rising = tuple(sorted(curve, key=lambda point: point.step))
    best = draw(st.sampled_from(rising)).step
    end: TrainingEnd | None = draw(st.sampled_from([None, "finished", "no_better"]))
    return TrainingProgress(rising, rising[-1].step, 208, 21, draw(st.sampled_from(["cpu", "H200"])), best, KEY, end)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(progress=progresses())
def test_a_training_is_found_exactly(store: Store, progress: TrainingProgress) -> None:
    samples.register(store)
    key = key_of(progress)
    samples.put_training(store, key, progress)
    assert store.training_of(key) == progress


def status_of(engine: Engine) -> tuple[str, int, str | None]:
    (row,) = queries.sql(engine, "SELECT status, step, stopped_because FROM trainings")
    return row["status"], row["step"], row["stopped_because"]


def test_a_training_grows_point_by_point_until_it_ends(store: Store, engine: Engine) -> None:
    samples.register(store)
    for number in range(1, 5):
        for _ in range(2):
            samples.put_training(store, KEY, samples.progress(number))
        assert store.training_of(KEY) == samples.progress(number)
        assert status_of(engine) == ("running", samples.CURVE[number - 1].step, None)
    samples.put_training(store, KEY, samples.progress(end="no_better"))
    assert store.training_of(KEY) == samples.progress(end="no_better")
    assert status_of(engine) == ("no_better", 30, None)


def test_a_run_that_begins_anew_loses_no_point(store: Store, engine: Engine) -> None:
    samples.register(store)
    samples.put_training(store, KEY, samples.progress(3))
    again = replace(samples.progress(2), trained_sha256=key_of("other bytes"))
    samples.put_training(store, KEY, again, "it is slow")
    assert store.training_of(KEY) == samples.progress(3)
    assert status_of(engine) == ("stopped", 20, "it is slow")
    samples.put_training(store, KEY, again)
    assert status_of(engine) == ("running", 20, None)


def test_a_training_that_is_over_stays_so(store: Store, engine: Engine) -> None:
    samples.register(store)
    samples.put_training(store, KEY, samples.progress(end="finished"))
    for earlier, because in ((samples.progress(2), "it is slow"), (samples.progress(4), None)):
        samples.put_training(store, KEY, earlier, because)
        assert store.training_of(KEY) == samples.progress(end="finished")
        assert status_of(engine) == ("finished", 30, None)


def test_a_training_that_was_stopped_may_go_on(store: Store, engine: Engine) -> None:
    samples.register(store)
    samples.put_training(store, KEY, samples.progress(2), "it diverges")
    assert store.training_of(KEY) == samples.progress(2)
    assert status_of(engine) == ("stopped", 10, "it diverges")
    samples.put_training(store, KEY, samples.progress(3))
    assert status_of(engine) == ("running", 20, None)


def test_what_is_over_cannot_be_stopped_and_what_is_no_number_not_stored(store: Store) -> None:
    samples.register(store)
    with pytest.raises(ValueError, match="is finished and cannot be stopped because 'it is slow'"):
        samples.put_training(store, KEY, samples.progress(end="finished"), "it is slow")
    bad = replace(samples.CURVE[1], loss=float("nan"))
    with pytest.raises(ValueError, match=r"training_points\.loss is nan"):
        samples.put_training(store, KEY, replace(samples.progress(1), points=(samples.CURVE[0], bad)))
    assert store.training_of(KEY) is None


def test_a_training_that_failed_for_good_is_a_failure_unless_it_came_to_its_end(store: Store) -> None:
    samples.register(store)
    failure = Failure.of("train", TrainingFailed("the loss is nan after 12 updates"))
    store.put_failure(KEY, failure)
    assert store.training_of(KEY) == failure
    samples.put_training(store, KEY, samples.progress(2))
    assert store.training_of(KEY) == failure
    samples.put_training(store, KEY, samples.progress(end="finished"))
    assert store.training_of(KEY) == samples.progress(end="finished")


def test_a_training_that_lost_its_worker_goes_on_where_it_was(store: Store) -> None:
    samples.register(store)
    lost = Failure.of("train", WorkerLost("killed"))
    store.put_failure(KEY, lost)
    assert store.training_of(KEY) is None
    samples.put_training(store, KEY, samples.progress(2))
    store.put_failure(KEY, lost)
    assert store.training_of(KEY) == samples.progress(2)


def rows_by_variant(engine: Engine) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in queries.trainings(engine)}


def test_what_a_training_bought_is_beside_what_it_cost(store: Store, engine: Engine) -> None:
    samples.fill_trained(store)
    assert list(rows_by_variant(engine)) == [each.label for each in (samples.KERAS, samples.TORCH, samples.HOPELESS)]
    row = rows_by_variant(engine)[samples.KERAS.label]
    told = {
        "sweep": "trained", "runtime": "litert", "scheme": "qat_int8", "trainer": "keras", "epochs": 10,
        "learning_rate": 1e-4, "distillation_weight": 1.0, "freeze_point": 0.5, "training_seed": 0, "threads": 1,
        "status": "finished", "stopped_because": None, "device": "cpu", "images": 208, "held_out_images": 21,
        "steps": 30, "step": 30, "best_step": 20, "first_held_out_loss": 4.0, "best_held_out_loss": 2.0,
        "seconds": 900.0, "core_seconds": 1800.0, "core_hours": 0.5, "ap": 0.46, "untrained_ap": 0.40,
        "training_key": samples.training_key(samples.KERAS),
    }  # fmt: skip
    assert {name: row[name] for name in told} == told
    assert row["ap_gained"] == pytest.approx(0.06)
    assert row["ap_gained_per_core_hour"] == pytest.approx(0.12)


def test_a_training_that_was_ended_has_a_cost_and_no_gain(store: Store, engine: Engine) -> None:
    samples.fill_trained(store)
    row = rows_by_variant(engine)[samples.HOPELESS.label]
    told = (
        "status",
        "stopped_because",
        "step",
        "best_held_out_loss",
        "core_seconds",
        "ap",
        "untrained_ap",
        "ap_gained",
    )
    assert [row[name] for name in told] == ["stopped", "it diverges", 10, 3.0, 900.0, None, 0.40, None]
    found = queries.find_variant(engine, samples.HOPELESS.label)
    assert (found["status"], found["verdict"], found["latency_ratio"]) == ("stopped", "unpromising", 0.5)
    assert (found["training_status"], found["artifact_sha256"]) == ("stopped", None)


def test_the_leaderboard_tells_the_cost_of_trainings_and_nothing_where_there_was_none(
    store: Store, engine: Engine
) -> None:
    samples.fill_trained(store)
    names = ("training_key", "training_status", "training_steps", "training_best_step", "training_core_seconds")
    rows = {row["variant"]: [row[name] for name in names] for row in queries.leaderboard(engine)}
    assert rows[samples.KERAS.label] == [samples.training_key(samples.KERAS), "finished", 30, 20, 1800.0]
    assert rows[samples.HOPELESS.label] == [samples.training_key(samples.HOPELESS), "stopped", 10, 10, 900.0]
    assert rows[samples.UNTRAINED.label] == rows[samples.REFERENCE.label] == [None] * 5


ALMOST_TWINS = (
    Variant(QatInt8(epochs=0), RuntimeSettings(threads=2)),
    Variant(QatInt8(epochs=0), RuntimeSettings(options=(("precision", "bfloat16"),))),
    Variant(QatInt8(epochs=0, toolchain="litert_quantizer")),
    Variant(QatInt8(epochs=0, granularity="per_tensor")),
    Variant(QatInt8(epochs=0, calibration_images=32)),
    Variant(QatInt8(epochs=0), RuntimeSettings(runtime="torch")),
)


def fill_with(store: Store, untrained: tuple[Variant, ...], trained: Variant) -> None:
    samples.register(store)
    sweep = samples.begin(store, variants=(samples.REFERENCE, *untrained, trained))
    for each in untrained:
        samples.measure(store, sweep, samples.Measured(each, ap=0.3, ratio=0.5))
    samples.train(store, sweep, samples.Measured(trained, ap=0.46, ratio=0.5))


def test_only_a_variant_that_is_equal_in_all_but_training_is_the_untrained_twin(store: Store, engine: Engine) -> None:
    fill_with(store, ALMOST_TWINS, samples.KERAS)
    (row,) = queries.trainings(engine)
    assert (row["untrained_ap"], row["ap_gained"], row["ap_gained_per_core_hour"]) == (None, None, None)


@pytest.mark.parametrize(
    "trained",
    [
        samples.TORCH,
        Variant(QatInt8(range_estimator="fixed", epochs=3)),
        Variant(QatInt8(toolchain="pt2e", memory_layout="contiguous"), RuntimeSettings(runtime="torch")),
    ],
)
def test_axes_that_exist_in_neither_are_equal(store: Store, engine: Engine, trained: Variant) -> None:
    assert isinstance(trained.scheme, QatInt8)
    twin = replace(trained, scheme=trained.scheme.untrained)
    fill_with(store, (twin, *(each for each in ALMOST_TWINS if each != twin)), trained)
    (row,) = queries.trainings(engine)
    assert (row["untrained_ap"], row["ap_gained"]) == (0.3, pytest.approx(0.16))


def test_an_ap_without_objects_and_a_training_without_cost_gain_nothing_that_can_be_told(
    store: Store, engine: Engine
) -> None:
    samples.fill_trained(store)
    free = replace(samples.CURVE[-1], core_seconds=0.0)
    again = replace(samples.progress(end="finished"), points=(*samples.CURVE[:-1], free))
    samples.put_training(store, samples.training_key(samples.KERAS), again)
    row = rows_by_variant(engine)[samples.KERAS.label]
    assert (row["ap_gained"], row["ap_gained_per_core_hour"]) == (pytest.approx(0.06), None)
    label = samples.UNTRAINED.label
    scores = samples.accuracy(label, -1.0)
    store.put_accuracy(key_of("accuracy", label), samples.artifact(label).sha256, samples.DATASET, scores, {})
    row = rows_by_variant(engine)[samples.KERAS.label]
    assert (row["ap"], row["untrained_ap"], row["ap_gained"]) == (0.46, None, None)


def test_the_status_is_failed_if_nothing_happened_since(store: Store, engine: Engine) -> None:
    sweep = samples.fill_trained(store)
    key, variant = samples.training_key(samples.HOPELESS), variant_key(samples.DETECTOR, samples.HOPELESS)
    store.put_failure(key, samples.LOST)
    store.settle_variant(sweep, variant, "failed", training_key=key, failure_key=key)
    assert rows_by_variant(engine)[samples.HOPELESS.label]["status"] == "failed"
    assert queries.find_variant(engine, samples.HOPELESS.label)["training_status"] == "failed"
    samples.put_training(store, key, samples.progress(3))
    assert rows_by_variant(engine)[samples.HOPELESS.label]["status"] == "running"


def test_a_training_that_never_began_is_none(store: Store, engine: Engine) -> None:
    sweep = samples.fill_trained(store)
    variant = variant_key(samples.DETECTOR, samples.HOPELESS)
    store.put_failure("f", samples.LOST)
    store.settle_variant(sweep, variant, "failed", training_key=key_of("never"), failure_key="f")
    assert samples.HOPELESS.label not in rows_by_variant(engine)
    assert queries.find_variant(engine, samples.HOPELESS.label)["training_key"] is None


def test_a_learning_curve_is_found_by_variant_or_by_the_key_of_its_training(store: Store, engine: Engine) -> None:
    samples.fill_trained(store)
    key = samples.training_key(samples.KERAS)
    for name in (samples.KERAS.label, variant_key(samples.DETECTOR, samples.KERAS)[:12], key, key[:12]):
        rows = queries.learning_curve(engine, name)
        assert [(row["step"], row["held_out_loss"], row["is_best"]) for row in rows] == [
            (0, 4.0, False), (10, 3.0, False), (20, 2.0, True), (30, 2.5, False),
        ]  # fmt: skip
        assert {row["training_key"] for row in rows} == {key}
    assert (rows[0]["loss"], rows[1]["loss"], rows[1]["images_per_second"]) == (None, 5.5, 20.0)


def test_without_a_sweep_a_training_has_its_curve_all_the_same(store: Store, engine: Engine) -> None:
    samples.register(store)
    samples.put_training(store, KEY, samples.progress(1))
    assert [row["is_best"] for row in queries.learning_curve(engine, KEY[:8])] == [True]


def test_what_was_not_trained_has_no_curve_and_says_why(store: Store, engine: Engine) -> None:
    samples.fill_trained(store)
    samples.begin(store, name="later", variants=(samples.REFERENCE, samples.KERAS))
    for variant, sweep in ((samples.UNTRAINED, "trained"), (samples.REFERENCE, "later")):
        with pytest.raises(UserMistake, match="has no learning curve: nothing in it is trained"):
            queries.learning_curve(engine, variant.label, sweep)
    with pytest.raises(UserMistake, match="its training has not begun"):
        queries.learning_curve(engine, samples.KERAS.label)
    assert queries.trainings(engine) == []
    with pytest.raises(UserMistake, match="did you mean"):
        queries.learning_curve(engine, samples.KERAS.label[:-1] + "9")


def test_show_tells_how_a_variant_was_trained(store: Store, engine: Engine) -> None:
    samples.fill_trained(store)
    found = queries.show(engine, samples.KERAS.label)
    told = {
        "training_status": "finished", "training.trainer": "keras", "training.recipe.batch_size": 8,
        "training.recipe.loss.balance": "hard_negatives", "training.versions.tensorflow": "2.21",
        "training.steps": 30, "training.best_held_out_loss": 2.0, "learning_curve.step": "0, 10, 20, 30",
        "learning_curve.held_out_loss": "4.0, 3.0, 2.0, 2.5",
    }  # fmt: skip
    assert {name: found[name] for name in told} == told
    assert not any(isinstance(value, dict | list) for value in found.values())
    other = queries.show(engine, samples.UNTRAINED.label)
    assert not any(name.startswith(("training.", "learning_curve.")) for name in other)


def test_an_artifact_of_a_training_that_is_not_stored_is_refused(store: Store) -> None:
    samples.register(store)
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        store.put_artifact("k", samples.DETECTOR, samples.KERAS.scheme, {}, samples.artifact("a"), 1.0, "no")
    assert store.artifact_of("k") is None
