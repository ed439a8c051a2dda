"""One suite for both databases: what readers ask."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from results import queries, schema
from results.dictionary import dictionary
from results.store import Store
from results.sweep_record import variant_key
from tasks.errors import UserMistake
from tasks.identity import key_of
from tasks.quantize.schemes import TRAINING_AXES, DynamicInt8, Float32, QatInt4, QatInt8, StaticInt8
from tasks.types import Accuracy, RuntimeSettings, Variant
from tests.results import samples


def rows_by_variant(engine: Engine) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in queries.leaderboard(engine)}


def test_the_leaderboard_ranks_within_the_budget_first_and_failures_last(store: Store, engine: Engine) -> None:
    samples.fill(store)
    expected = [
        samples.DYNAMIC,
        samples.FLOAT16,
        samples.REFERENCE,
        samples.STATIC,
        samples.THREADS,
        samples.PER_TENSOR,
    ]
    assert [row["variant"] for row in queries.leaderboard(engine)] == [variant.label for variant in expected]


def test_the_leaderboard_gives_losses_against_the_reference(store: Store, engine: Engine) -> None:
    samples.fill(store)
    rows = rows_by_variant(engine)
    static, reference = rows[samples.STATIC.label], rows[samples.REFERENCE.label]
    assert (reference["is_reference"], reference["ap_loss"], reference["feasible"]) == (True, 0.0, True)
    assert static["ap_loss"] == pytest.approx(0.1)
    assert static["budget_loss"] == static["ap_loss"]
    assert static["feasible"] is False
    assert (static["latency_ratio"], static["latency_ms_p50"], static["latency_converged"]) == (0.5, 10.0, True)
    assert (static["size_bytes"], static["int8_mac_share"]) == (7_000_000, 0.75)
    assert (static["granularity"], static["calibration_images"], static["threads"]) == ("per_channel", 64, 1)
    cold = ("import_ms", "load_ms", "first_inference_ms", "peak_memory_bytes", "executed_int8_mac_share")
    assert [static[name] for name in cold] == [250.0, 3.0, 25.0, 48 * 2**20, 0.625]


def test_the_leaderboard_shows_every_axis_and_null_where_it_does_not_exist(store: Store, engine: Engine) -> None:
    schemes = (
        StaticInt8(symmetry="symmetric", range_estimator="mse", input_type="uint8", output_type="int8",
                   keep_float="BoxPredictor_*", transform="equalized"),
        StaticInt8(range_estimator="fixed", toolchain="litert_quantizer", weight_algorithm="octav"),
        DynamicInt8(transform="clustered_16"),
        Float32(toolchain="eager", memory_layout="contiguous"),
        StaticInt8(toolchain="onnxruntime", activation_type="int8"),
        StaticInt8(toolchain="nncf", bias_correction="accurate"),
        QatInt8(trainer="torch", epochs=3, learning_rate=3e-5, distillation_weight=1.0, freeze_point=0.25,
                training_seed=2**32 - 1),
        QatInt4(epochs=0),
    )  # fmt: skip
    samples.register(store)
    variants = [Variant(scheme) for scheme in schemes]
    samples.begin(store, variants=(samples.REFERENCE, *variants))
    rows = rows_by_variant(engine)
    for variant in (samples.REFERENCE, *variants):
        row, axes = rows[variant.label], variant.scheme.axes()
        assert {axis: row[axis] for axis in schema.AXES} == {axis: axes.get(axis) for axis in schema.AXES}
        assert axes.keys() <= {*schema.AXES, "toolchain"}
    assert [rows[variant.label]["simulated"] for variant in variants] == [
        False, False, True, False, False, False, False, False,
    ]  # fmt: skip
    untrained = [rows[variants[-1].label][axis] for axis in TRAINING_AXES]
    assert untrained == [None, 0, None, None, None, None]
    assert rows[variants[1].label]["calibration_images"] is None


def test_the_leaderboard_names_the_options_of_the_runtime(store: Store, engine: Engine) -> None:
    samples.register(store)
    options = (("graph_optimization", "basic"), ("precision", "bfloat16"))
    variant = Variant(Float32(), RuntimeSettings(options=options))
    samples.begin(store, variants=(samples.REFERENCE, variant))
    rows = rows_by_variant(engine)
    assert rows[variant.label]["runtime_options"] == "graph_optimization=basic, precision=bfloat16"
    assert rows[samples.REFERENCE.label]["runtime_options"] == ""


def test_the_leaderboard_shows_the_latest_interval_of_a_loss(store: Store, engine: Engine) -> None:
    samples.fill(store)
    rows = rows_by_variant(engine)
    assert (rows[samples.STATIC.label]["ap_loss_low"], rows[samples.STATIC.label]["ap_loss_high"]) == (0.07, 0.13)
    assert rows[samples.DYNAMIC.label]["ap_loss_low"] is None
    samples.put_interval(store, "again", replace(samples.INTERVAL, low=0.08, high=0.12))
    assert len(rows_by_variant(engine)) == len(queries.leaderboard(engine)) == len(samples.VARIANTS)
    assert rows_by_variant(engine)[samples.STATIC.label]["ap_loss_low"] == 0.08


def test_a_loss_equal_to_the_budget_is_within_it(store: Store, engine: Engine) -> None:
    samples.fill(store)
    assert rows_by_variant(engine)[samples.DYNAMIC.label]["feasible"] is True


def test_nothing_to_score_is_stored_as_minus_one_and_shown_as_null(store: Store, engine: Engine) -> None:
    samples.fill(store)
    row = rows_by_variant(engine)[samples.STATIC.label]
    assert (row["ap_small"], row["ap_small_loss"]) == (None, None)
    found = store.accuracy_of(key_of("accuracy", samples.STATIC.label))
    assert isinstance(found, Accuracy)
    assert found.statistics[3] == -1.0


@pytest.mark.parametrize(
    ("budget", "loss", "feasible"),
    [
        ({"budget_max_loss": 0.1, "budget_relative": True}, 0.2, False),
        ({"budget_max_loss": 0.2, "budget_relative": True}, 0.2, True),
        ({"budget_metric": "AR100", "budget_max_loss": 0.05}, 0.1, False),
        ({"budget_metric": "AP_small", "budget_max_loss": 0.05}, None, None),
        ({"budget_metric": None, "budget_max_loss": None}, None, None),
    ],
)
def test_the_budget_may_be_relative_of_another_metric_or_absent(
    store: Store, engine: Engine, budget: dict[str, Any], loss: float | None, feasible: bool | None
) -> None:
    samples.fill(store, **budget)
    row = rows_by_variant(engine)[samples.STATIC.label]
    assert row["budget_loss"] == (None if loss is None else pytest.approx(loss))
    assert row["feasible"] is feasible


def test_without_the_reference_there_are_no_losses(store: Store, engine: Engine) -> None:
    samples.register(store)
    sweep = samples.begin(store)
    samples.measure(store, sweep, samples.MEASURED[3])
    row = rows_by_variant(engine)[samples.STATIC.label]
    assert (row["ap"], row["ap_loss"], row["feasible"]) == (0.4, None, None)


def test_the_pareto_front_holds_what_no_other_beats(store: Store, engine: Engine) -> None:
    samples.fill(store)
    expected = [samples.STATIC.label, samples.DYNAMIC.label, samples.FLOAT16.label]
    assert [row["variant"] for row in queries.pareto_front(engine)] == expected


def test_hosts_are_ranked_by_themselves(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    samples.measure(store, sweep, samples.Measured(samples.THREADS, ap=0.1, ratio=2.0, host=samples.OTHER_HOST))
    assert samples.THREADS.label in {row["variant"] for row in queries.pareto_front(engine)}
    measured = [row["variant"] for row in queries.leaderboard(engine) if row["status"] == "done"]
    assert measured[-1] == samples.THREADS.label


def test_class_losses_name_the_category_and_leave_out_what_has_no_objects(store: Store, engine: Engine) -> None:
    samples.fill(store)
    rows = queries.class_losses(engine, variant=samples.STATIC.label)
    assert [(row["category_id"], row["category"], row["ap"]) for row in rows] == [(1, "cat", 0.4), (2, None, None)]
    assert [row["ap_loss"] for row in rows] == [pytest.approx(0.1), None]


def test_failures_tell_why(store: Store, engine: Engine) -> None:
    samples.fill(store)
    (row,) = queries.failures(engine)
    assert (row["variant"], row["stage"], row["reason"]) == (samples.PER_TENSOR.label, "quantize", "audit_mismatch")
    assert (row["message"], row["detail"], row["kept"]) == ("the file is float", "a log", True)
    assert row["created_at"].endswith("+00:00")


def test_show_collects_what_the_tables_hold(store: Store, engine: Engine) -> None:
    samples.fill(store)
    found = queries.show(engine, samples.STATIC.label)
    assert found["mac_share.int8"] == 0.75
    assert (found["executed_mac_share.int8"], found["executed_mac_share.float32"]) == (0.5, 0.375)
    assert found["operators.CONV_2D"] == 34
    assert found["machine.cpu"] == "one"
    assert found["versions.tensorflow"] == "2.21"
    assert (found["ar100"], found["ar_small"]) == (0.4, None)
    assert (found["detector"], found["artifacts_url"]) == ("sample", "./artifacts")
    assert (found["ap_loss_low"], found["loss_interval.level"], found["loss_interval.resamples"]) == (0.07, 0.95, 2000)
    assert (found["layer_count.int8"], found["layer_count.float32"], found["layers.float32"]) == (2, 1, "Conv2d_0")
    assert "layers.int8" not in found
    assert (found["granularity"], found["audit.granularity"]) == ("per_channel", "per_channel")
    found = queries.show(engine, samples.FLOAT16.label)
    assert (found["granularity"], found["audit.granularity"]) == (None, "per_channel")
    assert not any(isinstance(value, dict | list) for value in found.values())


def test_layers_are_ranked_from_the_most_sensitive(store: Store, engine: Engine) -> None:
    samples.fill(store)
    rows = queries.layers(engine)
    assert [(row["rank"], row["position"], row["layer"]) for row in rows] == [
        (1, 1, "Conv2d_1_depthwise"), (2, 0, "Conv2d_0"), (3, 2, "Conv2d_1_pointwise"),
    ]  # fmt: skip
    assert [row["sqnr_db"] for row in rows] == [10.0, 20.0, None]
    assert [row["ap_loss"] for row in rows] == [0.15, 0.05, 0.0]
    assert {(row["detector"], row["scheme"], row["granularity"], row["dataset"], row["images"], row["reference_ap"])
            for row in rows} == {("sample", "static_int4", "per_channel", "sample set", 80, 0.5)}  # fmt: skip


def test_of_each_scheme_the_latest_measurement_of_its_layers_is_listed(store: Store, engine: Engine) -> None:
    samples.fill(store)
    samples.put_sensitivity(store, "later", layers=samples.LAYERS[:1])
    samples.put_sensitivity(store, "other", scheme=StaticInt8(), layers=samples.LAYERS[:2])
    assert [(row["scheme"], row["rank"]) for row in queries.layers(engine)] == [
        ("static_int4", 1), ("static_int8", 1), ("static_int8", 2),
    ]  # fmt: skip
    assert [row["layer"] for row in queries.layers(engine, "sample", "static_int4")] == ["Conv2d_0"]
    assert len(queries.layers(engine, samples.DETECTOR[:8])) == 3


def test_a_measurement_without_ap_does_not_hide_one_with_it(store: Store, engine: Engine) -> None:
    samples.fill(store)
    layers = tuple(replace(layer, ap=None, ap_loss=None) for layer in samples.LAYERS)
    store.put_sensitivity("later", samples.DETECTOR, samples.SENSITIVE, {}, {}, layers)
    assert {row["sensitivity_key"] for row in queries.layers(engine)} == {key_of("sensitivity")}


def test_layers_of_what_was_not_measured_are_a_mistake_unless_nothing_was(store: Store, engine: Engine) -> None:
    samples.register(store)
    assert queries.layers(engine, "sample", "static_int4") == []
    samples.put_sensitivity(store)
    with pytest.raises(UserMistake, match="no sensitivity of the scheme 'static_int8'; did you mean static_int4"):
        queries.layers(engine, scheme="static_int8")
    with pytest.raises(UserMistake, match="no sensitivity of the detector 'sampel'; did you mean sample"):
        queries.layers(engine, "sampel")


def test_an_ap_without_objects_is_stored_as_it_is_and_shown_as_null(store: Store, engine: Engine) -> None:
    samples.register(store)
    layer = replace(samples.LAYERS[0], ap=-1.0, ap_loss=1.5)
    samples.put_sensitivity(store, layers=(layer,))
    assert store.sensitivity_of(key_of("sensitivity")) == (layer,)
    (row,) = queries.layers(engine)
    assert (row["ap"], row["ap_loss"]) == (None, None)


def test_the_latest_sweep_is_meant_unless_another_is_named(store: Store, engine: Engine) -> None:
    first = samples.fill(store)
    second = samples.begin(store, name="second")
    assert queries.find_sweep(engine)["sweep_key"] == second
    assert queries.find_sweep(engine, "sample")["sweep_key"] == first
    assert queries.find_sweep(engine, first[:10])["sweep_key"] == first
    samples.begin(store)
    assert queries.find_sweep(engine)["sweep_key"] == first
    counts = [(row["sweep"], row["done"], row["failed"], row["pending"]) for row in queries.sweeps(engine)]
    assert counts == [("sample", 4, 1, 1), ("second", 0, 0, 6)]


def test_a_variant_goes_by_label_key_or_artifact(store: Store, engine: Engine) -> None:
    samples.fill(store)
    label = samples.STATIC.label
    key, sha256 = variant_key(samples.DETECTOR, samples.STATIC), samples.artifact(label).sha256
    for name in (label, key, key[:12], sha256[:12]):
        assert queries.find_variant(engine, name)["variant"] == label
    assert queries.detections_sha256_of(engine, label) == key_of("detections", label)


def test_mistaken_names_are_answered_with_near_ones(store: Store, engine: Engine) -> None:
    with pytest.raises(UserMistake, match="no sweep yet"):
        queries.leaderboard(engine)
    samples.fill(store)
    with pytest.raises(UserMistake, match="did you mean sample"):
        queries.leaderboard(engine, "sampel")
    with pytest.raises(UserMistake, match="did you mean litert-float16-converter-t1"):
        queries.show(engine, "litert-float16-convertor-t1")
    with pytest.raises(UserMistake, match="choices: litert-float32"):
        queries.show(engine, "zzz")
    with pytest.raises(UserMistake, match="has no detections: the file is float"):
        queries.detections_sha256_of(engine, samples.PER_TENSOR.label)


def test_one_artifact_of_several_variants_is_an_ambiguous_name(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    request = key_of("request", samples.REFERENCE.label)
    store.settle_variant(sweep, variant_key(samples.DETECTOR, samples.THREADS), "pending", request_key=request)
    with pytest.raises(UserMistake, match="stands for 2 variants"):
        queries.find_variant(engine, samples.artifact(samples.REFERENCE.label).sha256)


def test_the_questions_in_the_documentation_are_answered(store: Store, engine: Engine) -> None:
    samples.fill_trained(store)
    samples.fill_study(store)
    samples.fill(store)
    page = dictionary().partition("```sql\n")[2].partition("```")[0]
    fastest, categories, calibration, layers, operators, studies, trainings = [
        queries.sql(engine, query) for query in page.strip().rstrip(";").split(";")
    ]
    within = (samples.DYNAMIC, samples.DYNAMIC, samples.REFERENCE)
    assert sorted(row["variant"] for row in fastest) == [variant.label for variant in within]
    assert categories == [{"category": "cat", "loss": pytest.approx(0.1)}]
    assert calibration == [{"calibration_images": 64, "calibration_seed": 0, "ap_loss": pytest.approx(0.1)}]
    assert [row["layer"] for row in layers] == ["Conv2d_1_depthwise", "Conv2d_0"]
    assert [(row["operator"], row["kernel"], row["ms"]) for row in operators] == [
        (operator, kernel, ms)
        for operator, kernel, ms in (
            ("CONV_2D", "reference", 4.0), ("CONV_2D", "XNNPACK", 3.0), ("QUANTIZE", "XNNPACK", 1.0),
        )
        for _sweep in range(2)
    ]  # fmt: skip
    assert [(row["study"], row["verdict"], row["variants"], row["images"]) for row in studies] == [
        ("study", "feasible", 1, 80), ("study", "infeasible", 1, 120), ("study", "no_gain", 1, 0),
        ("study", "unsupported", 1, 0), ("trained", "unpromising", 1, 0),
    ]  # fmt: skip
    assert [(row["trainer"], row["seeds"], row["core_seconds"]) for row in trainings] == [
        ("keras", 1, 1800.0), ("torch", 1, 1800.0),
    ]  # fmt: skip
    assert [row["gained"] for row in trainings] == [pytest.approx(0.06), pytest.approx(0.03)]


def make_noisy(store: Store, sweep: str, *measured: samples.Measured) -> None:
    for each in measured:
        samples.measure(store, sweep, replace(each, noisy=samples.NOISE))


def test_a_noisy_latency_stands_behind_the_calm_ones_of_its_group(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    make_noisy(store, sweep, samples.MEASURED[2])
    rows = queries.leaderboard(engine)
    order = [samples.FLOAT16, samples.REFERENCE, samples.DYNAMIC, samples.STATIC]
    assert [row["variant"] for row in rows[:4]] == [variant.label for variant in order]
    assert [row["latency_noisy"] for row in rows] == [False, False, True, False, None, None]


def test_where_every_latency_is_noisy_they_are_ranked_as_ever(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    calm = [row["variant"] for row in queries.leaderboard(engine)]
    make_noisy(store, sweep, *samples.MEASURED)
    assert [row["variant"] for row in queries.leaderboard(engine)] == calm


def test_a_noisy_latency_is_not_on_the_front_and_pushes_nobody_off_it(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    make_noisy(store, sweep, samples.MEASURED[1], samples.MEASURED[3])
    front = [row["variant"] for row in queries.pareto_front(engine)]
    assert front == [samples.DYNAMIC.label, samples.REFERENCE.label]


def test_the_leaderboard_tells_throughput_attempts_and_shares_of_the_profile(store: Store, engine: Engine) -> None:
    samples.fill(store)
    static, float16 = (rows_by_variant(engine)[variant.label] for variant in (samples.STATIC, samples.FLOAT16))
    assert (static["images_per_second"], static["copies"], static["latency_attempts"]) == (200.0, 2, 1)
    assert (static["fallback_share"], static["conversion_share"]) == (0.5, 0.125)
    assert (float16["fallback_share"], float16["conversion_share"]) == (None, None)
    assert static["latency_key"] == key_of("latency", samples.STATIC.label)


def test_show_tells_ratios_to_the_reference_and_what_disturbed(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    make_noisy(store, sweep, samples.MEASURED[3])
    found = queries.show(engine, samples.STATIC.label)
    named = ("load_ratio", "first_inference_ratio", "peak_memory_ratio", "throughput_ratio", "size_ratio")
    assert [found[name] for name in (*named, "compressed_ratio")] == [1.0, 1.0, 1.0, 2.0, 1.0, 1.0]
    assert found["noisy"] == "other processes used 50% of the machine; the hypervisor took 9% of the CPU time"
    assert (found["latency_rounds"], found["latency_pairs"]) == (2, 3)
    assert queries.show(engine, samples.FLOAT16.label)["noisy"] == ""


def test_ratios_to_a_reference_of_another_host_are_not_told(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    samples.measure(store, sweep, samples.moved(samples.MEASURED[3], samples.OTHER_HOST))
    found = queries.show(engine, samples.STATIC.label)
    assert (found["load_ratio"], found["throughput_ratio"], found["size_ratio"]) == (None, None, 1.0)
    pending = queries.show(engine, samples.THREADS.label)
    assert (pending["load_ratio"], pending["size_ratio"], pending["noisy"]) == (None, None, "")


def test_a_profile_lists_operators_in_order_with_their_share_of_the_time(store: Store, engine: Engine) -> None:
    samples.fill(store)
    rows = queries.profile(engine, samples.STATIC.label)
    assert [(row["position"], row["operator"], row["kernel"], row["layer"]) for row in rows] == [
        (0, "QUANTIZE", "XNNPACK", None),
        (1, "CONV_2D", "reference", "Conv2d_0"),
        (2, "CONV_2D", "XNNPACK", "Conv2d_1_pointwise"),
        (3, "CONV_2D", "XNNPACK", "Conv2d_2_pointwise"),
    ]
    assert [row["time_share"] for row in rows] == [0.125, 0.5, 0.25, 0.125]
    assert [row["is_fallback"] for row in rows] == [False, True, False, False]
    assert {(row["sweep"], row["variant"]) for row in rows} == {("sample", samples.STATIC.label)}
    header = queries.profile_header(engine, samples.STATIC.label)
    told = ("total_ms", "repeats", "method", "fallback_share", "conversion_share", "cpu")
    assert [header[name] for name in told] == [
        9.0, 30, "prefixes of the graph", 0.5, 0.125, "one",
    ]  # fmt: skip
    assert header["host"] == samples.HOST.fingerprint


def test_a_profile_that_takes_no_time_has_no_shares(store: Store, engine: Engine) -> None:
    samples.fill(store)
    operators = tuple(replace(each, time_ms=0.0) for each in samples.PROFILE.operators)
    key = key_of("latency", samples.STATIC.label)
    store.put_profile(key, replace(samples.PROFILE, operators=operators))
    assert {row["time_share"] for row in queries.profile(engine, samples.STATIC.label)} == {None}
    store.put_profile(key, replace(samples.PROFILE, operators=()))
    assert queries.profile(engine, samples.STATIC.label) == []
    assert queries.profile_header(engine, samples.STATIC.label)["fallback_share"] == 0


def test_without_a_profile_the_command_that_takes_one_is_named(store: Store, engine: Engine) -> None:
    samples.fill(store)
    command = f"quantsweep profile {samples.FLOAT16.label} --db "
    with pytest.raises(UserMistake, match=f"has no profile; run: {command}"):
        queries.profile(engine, samples.FLOAT16.label)
    with pytest.raises(UserMistake, match=r" --sweep sample$"):
        queries.profile_header(engine, samples.FLOAT16.label, "sample")
    with pytest.raises(UserMistake, match="has no profile"):
        queries.profile(engine, samples.THREADS.label)


@pytest.mark.parametrize("replaces", [False, True])
def test_a_winner_has_a_second_latency_which_counts_where_it_replaces_the_first(
    store: Store, engine: Engine, replaces: bool
) -> None:
    sweep = samples.fill(store)
    winner = samples.FLOAT16
    row = queries.find_variant(engine, winner.label)
    store.put_latency(key_of("own"), row["structure_sha256"], {}, samples.HOST, samples.latency(0.97))
    store.put_own_latency(sweep, row["variant_key"], key_of("own"), replaces)
    again = queries.find_variant(engine, winner.label)
    assert (again["own_latency_ratio"], again["latency_ratio"]) == (0.97, 0.97 if replaces else 0.90)
    assert queries.find_variant(engine, samples.STATIC.label)["own_latency_ratio"] is None
