"""`quantsweep results` and `quantsweep db` as a user meets them."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from orchestrator.cli import db, results
from orchestrator.cli.leaderboard import LEADERBOARD, verdict
from orchestrator.cli.output import Column, number_of, print_rows, text_of
from orchestrator.cli.trainings import sparkline
from results.connect import open_database
from results.store import Store
from results.sweep_record import variant_key
from tasks.detect import detections_to_bytes
from tasks.errors import DatabaseMistake, UserMistake
from tasks.identity import key_of
from tasks.quantize.schemes import DynamicInt8, QatInt8, StaticInt8
from tasks.score import DETECTIONS_SUFFIX
from tasks.storage import ArtifactStorage
from tasks.types import DetectionShard, RuntimeSettings, Variant
from tests.results import samples

ON_ONNX = Variant(QatInt8(toolchain="onnxruntime"), RuntimeSettings("onnxruntime"))
CLUSTERED = Variant(DynamicInt8(transform="clustered_16"))

DESIGN_KEYS = {
    "variant", "runtime", "scheme", "toolchain", "granularity", "calibration_images", "threads", "status", "ap", "ap50",
    "ap_loss", "latency_ms_p50", "latency_ratio", "latency_ratio_low", "latency_ratio_high", "size_bytes",
    "compressed_bytes", "artifact_sha256", "feasible",
}  # fmt: skip

runner = CliRunner()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with the sample sweep, named by QUANTSWEEP_DB."""
    path = tmp_path / "sample.db"
    samples.fill(Store(open_database(str(path))))
    monkeypatch.setenv("QUANTSWEEP_DB", str(path))
    return path


def run(*arguments: str, app: typer.Typer = results.app) -> Result:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result


def rows_of(*arguments: str) -> list[dict[str, Any]]:
    rows = json.loads(run(*arguments, "--json").stdout)
    assert isinstance(rows, list)
    assert not any(isinstance(value, dict | list) for row in rows for value in row.values())
    return rows


def mistake(*arguments: str) -> str:
    result = runner.invoke(results.app, arguments)
    assert isinstance(result.exception, UserMistake), result.output
    assert result.stdout == ""
    return str(result.exception)


def test_the_leaderboard_in_json_has_the_promised_keys(database: Path) -> None:
    rows = rows_of("leaderboard")
    assert all(row.keys() >= DESIGN_KEYS for row in rows)
    assert [row["variant"] for row in rows][:2] == [samples.DYNAMIC.label, samples.FLOAT16.label]
    assert rows[0]["feasible"] is True


def test_the_leaderboard_for_people_fits_120_columns_and_says_why_variants_failed(database: Path) -> None:
    lines = run("leaderboard").stdout.splitlines()
    assert lines[0] == "sample: 80 images of sample set, budget: ap loss <= 0.01"
    assert lines[1].split() == ["variant", "AP", "AP50", "loss", "[interval]", "ms", "ratio", "MB", "status"]
    assert all(len(line) <= 120 for line in lines)
    (static,) = [line.split() for line in lines if line.startswith(samples.STATIC.label)]
    assert static == [samples.STATIC.label, "0.400", "0.500", "+.100", "[+.070,+.130]", "10.0", "0.50", "7.0", "over"]
    assert lines[-3] == f"failed: {samples.PER_TENSOR.label}: audit_mismatch: the file is float"
    assert lines[-2] == f"fastest within the budget: {samples.DYNAMIC.label}"


def test_the_longest_label_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    label = "litert-static_int8-litert_quantizer-per_channel-cal128-seed0-t1"
    row = {"variant": label, "ap": 0.2302, "ap50": 0.386, "ap_loss": -0.0036, "ap_loss_low": -0.0121,
           "ap_loss_high": 0.0049, "simulated": True, "latency_ms_p50": 394.1, "status": "done",
           "latency_ratio": 22.14, "latency_ratio_low": 22.11, "latency_ratio_high": 22.18, "size_bytes": 27_300_000,
           "latency_noisy": True, "feasible": True}  # fmt: skip
    print_rows([row], LEADERBOARD)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == [label, "0.230", "0.386", "-.004", "[-.012,+.005]", "394.1", "~22.1", "27.3", "within*"]
    assert len(line) <= 120


@pytest.fixture
def simulated(database: Path) -> Path:
    """The sample sweep, and after it one with a variant that is simulated and within the budget."""
    store = Store(open_database(str(database)))
    variants = (*samples.VARIANTS, CLUSTERED)
    sweep = samples.begin(store, name="clustered", variants=variants)
    for measured in (*samples.MEASURED, samples.Measured(CLUSTERED, ap=0.495, ratio=0.7)):
        samples.measure(store, sweep, measured)
    samples.fail(store, sweep, samples.PER_TENSOR)
    return database


def test_simulated_variants_are_marked_and_explained(simulated: Path) -> None:
    lines = run("leaderboard").stdout.splitlines()
    (clustered,) = [line.split() for line in lines if line.startswith(CLUSTERED.label)]
    assert clustered[-1] == "within*"
    assert [line for line in lines if line.startswith("* simulated: no kernel")]
    assert "* simulated" not in run("leaderboard", "--sweep", "sample").stdout
    assert {row["variant"] for row in rows_of("leaderboard") if row["simulated"]} == {CLUSTERED.label}


def test_the_wide_leaderboard_has_sizes_intervals_and_shares(simulated: Path) -> None:
    lines = run("leaderboard", "--wide").stdout.splitlines()
    (static,) = [line.split() for line in lines if line.startswith(samples.STATIC.label)]
    assert static == [
        samples.STATIC.label, "0.400", "0.500", "-", "0.400", "0.400", "+0.100", "[+0.070,+0.130]", "0.50",
        "[0.49,0.51]", "10.0", "200.0", "3", "25", "48", "7000000", "6000000", "0.750", "0.750", "no", "over",
    ]  # fmt: skip
    (clustered,) = [line.split() for line in lines if line.startswith(CLUSTERED.label)]
    assert clustered[-2:] == ["yes", "within"]


def test_the_leaderboard_for_documents_is_a_markdown_table_in_the_order_of_the_spec(simulated: Path) -> None:
    lines = run("leaderboard", "--markdown").stdout.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    assert {len(cells) for cells in table} == {19}
    assert set(table[1]) == {"---", "---:"}
    shown = [samples.REFERENCE, samples.FLOAT16, samples.DYNAMIC, samples.STATIC, samples.THREADS, CLUSTERED]
    assert [cells[0] for cells in table[2:]] == [variant.label for variant in shown]
    assert table[5][6:8] == ["+0.100 [+0.070,+0.130]", "0.50 [0.49,0.51]"]
    assert lines[-3:] == ["Failed:", "", f"- `{samples.PER_TENSOR.label}`: audit_mismatch: the file is float"]


@pytest.fixture
def noisy(database: Path) -> Path:
    """The sample sweep with a noisy latency of the fastest variant within the budget."""
    store = Store(open_database(str(database)))
    samples.measure(store, samples.begin(store), replace(samples.MEASURED[2], noisy=samples.NOISE))
    return database


def test_noisy_latencies_are_marked_explained_and_not_called_the_fastest(noisy: Path) -> None:
    lines = run("leaderboard").stdout.splitlines()
    (dynamic,) = [line.split() for line in lines if line.startswith(samples.DYNAMIC.label)]
    assert dynamic[-3] == "~0.80"
    assert lines[-3].startswith("~ noisy: the machine was disturbed while a latency was measured; ")
    assert lines[-2] == f"fastest within the budget: {samples.FLOAT16.label}"
    assert all(len(line) <= 120 for line in lines)
    markdown = run("leaderboard", "--markdown").stdout
    assert "| ~0.80 [0.79,0.81] |" in markdown
    assert "~ noisy: the machine was disturbed" in markdown
    shown = run("show", samples.DYNAMIC.label).stdout
    assert "other processes used 50% of the machine; the hypervisor took 9% of the CPU time" in " ".join(shown.split())


def test_without_noise_nothing_is_said_of_it(database: Path) -> None:
    assert "~" not in run("leaderboard").stdout + run("leaderboard", "--markdown").stdout


def test_a_leaderboard_has_one_form(database: Path) -> None:
    assert "choose one of them" in mistake("leaderboard", "--wide", "--json")


def test_layers_are_listed_scheme_by_scheme_the_most_sensitive_first(database: Path) -> None:
    samples.put_sensitivity(Store(open_database(str(database))), "other", StaticInt8(), samples.LAYERS[:2])
    lines = run("layers").stdout.splitlines()
    titles = [line for line in lines if line.startswith("sample, one layer at a time in")]
    assert titles == [
        f"sample, one layer at a time in {scheme}, granularity per_channel, range_estimator min_max, "
        "calibration_images 64, calibration_seed 0; AP 0.500 in float on 80 images of sample set"
        for scheme in ("static_int4: litert_quantizer", "static_int8: converter")
    ]
    assert lines[2].split() == ["1", "Conv2d_1_depthwise", "10.0", "10.0", "18.0", "+0.1500", "30.0%"]
    assert lines[4].split()[:4] == ["3", "Conv2d_1_pointwise", "no", "noise"]
    assert all(len(line) <= 120 for line in lines if line not in titles)
    rows = rows_of("layers", "--scheme", "static_int4", "--detector", "sample")
    assert [(row["rank"], row["layer"], row["sqnr_db"]) for row in rows][::2] == [
        (1, "Conv2d_1_depthwise", 10.0), (3, "Conv2d_1_pointwise", None),
    ]  # fmt: skip
    assert "did you mean static_int8 or static_int4?" in mistake("layers", "--scheme", "static_int5")


def test_layers_can_be_printed_as_markdown(database: Path) -> None:
    lines = run("layers", "--markdown").stdout.splitlines()
    assert lines[2].startswith("| rank | layer | SQNR dB |")
    assert lines[4].startswith("| 1 | ")
    assert "choose one of them" in mistake("layers", "--markdown", "--json")


def test_layers_without_ap_say_so(database: Path) -> None:
    layers = (replace(samples.LAYERS[0], ap=None, ap_loss=None),)
    store = Store(open_database(str(database)))
    store.put_sensitivity("k", samples.DETECTOR, StaticInt8(), {}, {}, layers)
    lines = run("layers", "--scheme", "static_int8").stdout.splitlines()
    assert lines[0].endswith("; AP was not measured")
    assert lines[2].split() == ["1", "Conv2d_0", "20.0", "22.0", "20.0", "-", "10.0%"]


def test_without_layers_the_way_to_get_them_is_told(database: Path, tmp_path: Path) -> None:
    open_database(str(tmp_path / "empty.db"))
    told = run("layers", "--db", str(tmp_path / "empty.db")).stdout
    assert "sensitivity:\n      - {scheme: static_int4}\n" in told
    assert "keep_float: most_sensitive_3" in told
    assert rows_of("layers", "--db", str(tmp_path / "empty.db")) == []


def test_show_tells_axes_interval_and_the_layers_that_differ(database: Path) -> None:
    shown = dict(line.split(maxsplit=1) for line in run("show", samples.STATIC.label).stdout.splitlines()[2:])
    expected = {"range_estimator": "min_max", "transform": "none", "simulated": "False", "ap_loss_low": "0.07",
                "ap_loss_high": "0.13", "loss_interval.level": "0.95", "layer_count.int8": "2",
                "layer_count.float32": "1", "layers.float32": "Conv2d_0"}  # fmt: skip
    assert {name: shown.get(name, "").strip() for name in expected} == expected


def test_a_profile_is_a_table_of_operators_and_their_sums(database: Path) -> None:
    lines = run("show", samples.STATIC.label, "--profile").stdout.splitlines()
    assert lines[0] == f"{samples.STATIC.label}: 9.00 ms an inference on one"
    assert [line.split() for line in lines[1:4]] == [
        ["#", "operator", "layer", "arithmetic", "kernel", "ms", "share", "GMAC/s", "note"],
        ["0", "QUANTIZE", "quantize", "int8", "XNNPACK", "1.000", "12.5%", "-", "conversion"],
        ["1", "CONV_2D", "Conv2d_0", "float32", "reference", "4.000", "50.0%", "1.0", "fallback"],
    ]
    sums = [line.split() for line in lines[lines.index("") + 3 :]][:3]
    assert sums == [
        ["CONV_2D", "reference", "float32", "1", "4.000", "50.0%", "1.0", "fallback"],
        ["CONV_2D", "XNNPACK", "int8", "2", "3.000", "37.5%", "4.7"],
        ["QUANTIZE", "XNNPACK", "int8", "1", "1.000", "12.5%", "-", "conversion"],
    ]
    assert lines[-3] == "operators: 8.00 of 9.00 ms, over 30 inferences, by prefixes of the graph"
    assert [line.split(" of the operators' time")[0] for line in lines[-2:]] == [
        "fallbacks: 50.0%", "conversions: 12.5%",
    ]  # fmt: skip
    assert all(len(line) <= 120 for line in lines)
    rows = rows_of("show", samples.STATIC.label, "--profile")
    assert [(row["position"], row["time_ms"]) for row in rows] == [(0, 1.0), (1, 4.0), (2, 2.0), (3, 1.0)]


def test_an_empty_profile_is_told_as_such(database: Path) -> None:
    store = Store(open_database(str(database)))
    store.put_profile(key_of("latency", samples.STATIC.label), replace(samples.PROFILE, operators=()))
    lines = run("show", samples.STATIC.label, "--profile").stdout.splitlines()
    assert "no operator takes time" in lines
    assert lines[-1].startswith("conversions: 0.0%")


def test_a_variant_without_a_profile_names_the_command_that_takes_one(database: Path) -> None:
    told = mistake("show", samples.FLOAT16.label, "--profile")
    label = samples.FLOAT16.label
    assert told == f"{label} has no profile; run: quantsweep profile {label} --db {database}"


def test_two_variants_are_compared_side_by_side(database: Path) -> None:
    static, float16 = samples.STATIC.label, samples.FLOAT16.label
    lines = run("compare", float16, static).stdout.splitlines()
    assert lines[:2] == [f"A: {float16}", f"B: {static}"]
    cells = {line[:19].strip(): line[19:].split() for line in lines[2:-1]}
    assert cells["what"] == ["A", "B", "B", "/", "A"]
    assert cells["AP loss"] == ["+0.000", "+0.100"]
    assert cells["ms"][:3] == ["18.00", "10.00", "0.556"]
    assert cells["images/s"] == ["111.1", "200.0", "1.800"]
    assert cells["stored MB"] == ["7.00", "7.00", "1.000"]
    assert cells["ms, timed in turn"] == ["20.00", "18.00", "0.893", "[0.877,", "0.909]"]
    assert lines[-1] == f"{static} is 12.0 % faster than {float16} [10.0, 14.0] (timed in turn)"
    (row,) = rows_of("compare", float16, static)
    assert (row["first_ap"], row["second_ap"], row["verdict"]) == (0.5, 0.4, lines[-1])
    assert row["measured.ratio"] == pytest.approx(1 / 1.12)
    (row,) = rows_of("compare", float16, samples.DYNAMIC.label)
    assert row["measured"] is None


def test_a_comparison_marks_noise_and_says_that_nothing_was_timed_in_turn(noisy: Path) -> None:
    lines = run("compare", samples.DYNAMIC.label, samples.STATIC.label).stdout.splitlines()
    assert any(line.split()[:3] == ["ms", "~16.00", "10.00"] for line in lines)
    assert lines[-3:-1] == [
        "~ noisy: the machine was disturbed, and such times make no winner",
        "never timed in turn; --measure does that",
    ]
    assert lines[-1].startswith("no difference can be told: noisy when timed beside the reference: ")


def test_compare_measures_first_if_asked_to(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def measure_pair(*arguments: Any) -> None:
        asked.append(arguments)
        later = replace(samples.COMPARISON, ratio=1.5, ratio_low=1.4, ratio_high=1.6)
        samples.put_comparison(
            Store(open_database(str(database))), later, samples.DYNAMIC, samples.STATIC, key="measured"
        )

    monkeypatch.setattr("orchestrator.comparison.measure_pair", measure_pair)
    names = (samples.DYNAMIC.label, samples.STATIC.label)
    assert "timed beside the reference" in run("compare", *names).stdout
    assert asked == []
    told = run("compare", *names, "--measure", "--max-seconds", "5", "--artifacts", "there").stdout
    assert asked == [(str(database), *names, None, "there", "in-process", 5.0)]
    assert told.splitlines()[-1] == f"{names[0]} is 50.0 % faster than {names[1]} [40.0, 60.0] (timed in turn)"
    assert "it must be above 0" in mistake("compare", *names, "--measure", "--max-seconds", "0")


def test_pareto_classes_failures_sweeps_and_show(database: Path) -> None:
    static = samples.STATIC.label
    assert rows_of("pareto")[0]["variant"] == static
    assert {row["category"] for row in rows_of("classes", static)} == {"cat", None}
    assert [row["kept"] for row in rows_of("failures")] == [True]
    assert [row["sweep"] for row in rows_of("sweeps")] == ["sample"]
    assert [row["mac_share.int8"] for row in rows_of("show", static)] == [0.75]
    for command in (["pareto"], ["classes"], ["show", static]):
        assert static in run(*command).stdout
    assert "audit_mismatch" in run("failures").stdout
    assert "sample" in run("sweeps").stdout


@pytest.fixture
def study(database: Path) -> Path:
    """The sample sweep, and after it the sample study."""
    samples.fill_study(Store(open_database(str(database))))
    return database


def test_what_a_study_stopped_stands_below_the_scores_with_what_was_decided(study: Path) -> None:
    lines = run("leaderboard").stdout.splitlines()
    first = lines.index("not scored on every image:")
    above = [line.split()[0] for line in lines[2:first] if line]
    assert above == [
        variant.label for variant in (samples.DYNAMIC, samples.REFERENCE, samples.THREADS, samples.PER_TENSOR)
    ]
    assert [line.strip().split(maxsplit=2) for line in lines[first + 1 : first + 4]] == [
        ["variant", "ratio", "decided"],
        [samples.STATIC.label, "0.50", "infeasible after 40 of 80: loss .045 [.020,.070]"],
        [samples.FLOAT16.label, "0.90", "no gain"],
    ]
    wide = " ".join(run("leaderboard", "--wide").stdout.split())
    label = samples.STATIC.label
    assert f"{label} 0.50 [0.49,0.51] infeasible after 40 of 80 images: loss 0.045 [0.020, 0.070] " in wide
    assert all(len(line) <= 120 for line in lines)
    assert "not scored on every image" not in run("leaderboard", "--sweep", "sample").stdout


def test_the_footer_of_a_study_names_the_winner_and_what_it_took(study: Path) -> None:
    lines = run("leaderboard").stdout.splitlines()
    assert lines[-3] == f"fastest within the budget: {samples.DYNAMIC.label}"
    # Six variants are five builds: two of them differ in the number of threads.
    assert lines[-1] == (
        "verdicts: 1 feasible, 1 infeasible, 1 no gain, 1 unsupported; 200 of 400 images inferred (50.0%)"
    )
    assert "verdicts:" not in run("leaderboard", "--sweep", "sample").stdout


def test_the_reference_of_a_study_is_no_candidate(database: Path) -> None:
    store = Store(open_database(str(database)))
    sweep = samples.begin(store, name="beaten", kind="study")
    samples.measure(store, sweep, samples.MEASURED[0])
    samples.measure(store, sweep, samples.MEASURED[3])
    lines = run("leaderboard").stdout.splitlines()
    assert lines[-2:] == ["no variant is within the budget", "verdicts: none yet; 0 of 400 images inferred (0.0%)"]


def test_a_study_in_json_and_markdown_tells_verdict_and_confirmation(study: Path) -> None:
    rows = {row["variant"]: row for row in rows_of("leaderboard")}
    static, dynamic = rows[samples.STATIC.label], rows[samples.DYNAMIC.label]
    assert all(row.keys() >= DESIGN_KEYS for row in rows.values())
    assert (static["ap"], static["status"], static["verdict"], static["verdict_images"]) == (
        None, "stopped", "infeasible", 40,
    )  # fmt: skip
    assert (dynamic["verdict"], dynamic["trial"], dynamic["confirm_ap"]) == ("feasible", 1, 0.46)
    lines = run("leaderboard", "--markdown").stdout.splitlines()
    assert not [line for line in lines if line.startswith(f"| {samples.STATIC.label}")]
    assert lines[lines.index("Not scored on every image:") + 2 :][:2] == [
        f"- `{samples.FLOAT16.label}`: no gain",
        f"- `{samples.STATIC.label}`: infeasible after 40 of 80 images: loss 0.045 [0.020, 0.070]",
    ]
    shown = dict(line.split(maxsplit=1) for line in run("show", samples.DYNAMIC.label).stdout.splitlines()[2:])
    expected = {"verdict": "feasible", "verdict_because": "loses 0.0100", "confirm_ap": "0.46",
                "confirm_dataset": "confirmation set", "inferred": "80"}  # fmt: skip
    assert {name: shown.get(name, "").strip() for name in expected} == expected


def test_studies_are_listed_among_the_sweeps(study: Path) -> None:
    assert [(row["sweep"], row["kind"], row["stopped"]) for row in rows_of("sweeps")] == [
        ("study", "study", 2), ("sample", "sweep", 0),
    ]  # fmt: skip
    assert all(len(line) <= 120 for line in run("sweeps").stdout.splitlines())


@pytest.fixture
def trained(database: Path) -> Path:
    """The sample sweep, and after it the sample study of trainings."""
    samples.fill_trained(Store(open_database(str(database))))
    return database


def test_trainings_are_listed_with_what_they_cost_and_bought(trained: Path) -> None:
    lines = run("trainings").stdout.splitlines()
    assert lines[0] == "trained: what trainings bought, AP on 80 images of sample set"
    assert [line.split() for line in lines[2:5]] == [
        [samples.KERAS.label, "finished", "30/30", "20", "4.000", "2.000", "0.500", "0.400", "0.460", "+0.0600",
         "+0.1200"],
        [samples.TORCH.label, "finished", "30/30", "20", "4.000", "2.000", "0.500", "0.400", "0.430", "+0.0300",
         "+0.0600"],
        [samples.HOPELESS.label, "stopped", "10/30", "10", "4.000", "3.000", "0.250", "0.400", "-", "-", "-"],
    ]  # fmt: skip
    assert lines[5:] == [f"stopped: {samples.HOPELESS.label}: it diverges", "3 trainings: 1.250 core-hours in all"]
    rows = rows_of("trainings")
    assert [(row["variant"], row["core_hours"], row["stopped_because"]) for row in rows][1:] == [
        (samples.TORCH.label, 0.5, None), (samples.HOPELESS.label, 0.25, "it diverges"),
    ]  # fmt: skip


def test_variants_that_share_a_training_pay_for_it_once(trained: Path) -> None:
    store = Store(open_database(str(trained)))
    sweep = samples.begin(store, name="shared", variants=(*samples.TRAINED, ON_ONNX))
    for variant in (samples.KERAS, ON_ONNX):
        samples.train(store, sweep, samples.Measured(variant, ap=0.46, ratio=0.5))
    key = samples.training_key(samples.KERAS)
    made = samples.artifact(ON_ONNX.label)
    store.put_artifact(key_of("request", ON_ONNX.label), samples.DETECTOR, ON_ONNX.scheme, {}, made, 1.0, key)
    lines = run("trainings", "shared").stdout.splitlines()
    assert lines[-1] == "1 training of 2 variants, which share some: 0.500 core-hours in all"


def test_trainings_of_a_sweep_that_is_named_either_way(trained: Path) -> None:
    assert "no training has begun" in run("trainings", "sample").stdout
    assert rows_of("trainings", "sample") == rows_of("trainings", "--sweep", "sample") == []
    assert len(rows_of("trainings", "trained")) == 3
    assert "both name a sweep" in mistake("trainings", "sample", "--sweep", "trained")
    assert "did you mean trained" in mistake("trainings", "trainde")


def test_the_leaderboard_has_the_cost_of_trainings_only_where_there_were_any(trained: Path) -> None:
    lines = run("leaderboard").stdout.splitlines()
    assert lines[1].split() == ["variant", "AP", "loss", "[interval]", "ms", "ratio", "MB", "core-h", "status"]
    (keras,) = [line.split() for line in lines if line.startswith(samples.KERAS.label)]
    assert keras[-2:] == ["0.500", "over"]
    (untrained,) = [line.split() for line in lines if line.startswith(samples.UNTRAINED.label)]
    assert untrained[-2:] == ["-", "over"]
    (hopeless,) = [line.split() for line in lines if line.startswith(samples.HOPELESS.label)]
    assert hopeless == [samples.HOPELESS.label, "0.50", "0.250", "unpromising"]
    assert all(len(line) <= 120 for line in lines)
    assert "core-h" in run("leaderboard", "--wide").stdout
    assert "| core-h | status |" in run("leaderboard", "--markdown").stdout
    for form in ([], ["--wide"], ["--markdown"]):
        assert "core-h" not in run("leaderboard", "--sweep", "sample", *form).stdout


def test_show_draws_the_learning_curve_of_a_trained_variant(trained: Path) -> None:
    lines = run("show", samples.KERAS.label).stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("held-out loss "))
    assert lines[first] == "held-out loss █▅▁▃ 4.0000 at first, 2.0000 at best, after 20 of 30 updates"
    assert [line.split() for line in lines[first + 2 :]] == [
        ["0", "4.0000", "-", "-", "-", "-", "-", "0.0"],
        ["10", "3.0000", "5.5000", "1.0000", "2.5000", "2.0000", "20.0", "900.0"],
        ["20", "*2.0000", "4.5000", "0.5000", "2.0000", "2.0000", "25.0", "1600.0"],
        ["30", "2.5000", "4.0000", "0.5000", "1.5000", "2.0000", "25.0", "1800.0"],
    ]
    assert not [line for line in lines if line.startswith("learning_curve")]
    assert run("show", samples.KERAS.label, "--curve").stdout.splitlines() == lines[first:]
    assert "held-out" not in run("show", samples.UNTRAINED.label).stdout


def test_a_learning_curve_in_json_is_an_object_for_each_point(trained: Path) -> None:
    key = samples.training_key(samples.KERAS)
    for name in (samples.KERAS.label, key[:12]):
        rows = rows_of("show", name, "--curve")
        assert [(row["step"], row["loss"], row["is_best"]) for row in rows] == [
            (0, None, False), (10, 5.5, False), (20, 4.5, True), (30, 4.0, False),
        ]  # fmt: skip
    (found,) = rows_of("show", samples.KERAS.label)
    assert (found["training_key"], found["learning_curve.held_out_loss"]) == (key, "4.0, 3.0, 2.0, 2.5")
    assert "nothing in it is trained" in mistake("show", samples.UNTRAINED.label, "--curve")
    assert "choose one of them" in mistake("show", samples.KERAS.label, "--curve", "--profile")


def test_a_line_of_numbers_is_drawn_with_what_the_output_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, levels, even in (("utf-8", "▁▂▃▄▅▆▇█", "▁▁"), ("ascii", "_.-~=+*#", "__")):
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
        assert sparkline([float(number) for number in range(8)]) == levels
        assert sparkline([3.0, 3.0]) == even


def test_the_nearest_say_what_they_need(study: Path) -> None:
    lines = run("nearest").stdout.splitlines()
    assert lines == [
        f"{samples.STATIC.label}: 0.50 of float32's time",
        "  needs a budget of about 0.0450 instead of 0.01, judged by 40 of 80 images (0.0200 to 0.0700 with 99 %)",
    ]
    assert [row["variant"] for row in rows_of("nearest", "--sweep", "sample")] == [samples.STATIC.label]
    store = Store(open_database(str(study)))
    samples.begin(store, name="empty")
    assert run("nearest").stdout == "no variant with a loss is over the budget\n"
    assert rows_of("nearest") == []


def test_sql_reads_and_does_not_write(database: Path) -> None:
    query = "SELECT variant, ap FROM leaderboard WHERE feasible ORDER BY latency_ratio"
    assert rows_of("sql", query)[0] == {"variant": samples.DYNAMIC.label, "ap": 0.49}
    assert samples.DYNAMIC.label in run("sql", query).stdout
    assert "refuses the statement" in mistake("sql", "DELETE FROM sweep_variants")
    assert "no such column" in mistake("sql", "SELECT loss FROM leaderboard")
    assert len(rows_of("leaderboard")) == len(samples.VARIANTS)


def test_the_database_and_the_sweep_can_be_named(database: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    store = Store(open_database(str(other)))
    samples.fill(store, name="first")
    samples.begin(store, name="second")
    assert {row["status"] for row in rows_of("leaderboard", "--db", str(other))} == {"pending"}
    assert rows_of("leaderboard", "--db", f"sqlite:///{other}", "--sweep", "first")[0]["sweep"] == "first"


def test_mistakes_have_one_message_and_print_nothing(database: Path, tmp_path: Path) -> None:
    assert "there is no database" in mistake("leaderboard", "--db", str(tmp_path / "missing.db"))
    assert "did you mean sample" in mistake("leaderboard", "--sweep", "smaple")
    assert "did you mean litert-float16-converter-t1" in mistake("show", "litert-float16-t1")
    assert not (tmp_path / "missing.db").exists()


@pytest.fixture
def exportable(database: Path, tmp_path: Path) -> tuple[str, DetectionShard]:
    """A variant whose detections lie where its sweep says."""
    detections = np.array([[1, 5.5, 6.25, 7, 8, 0.9, 3], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 90]], np.float32)
    shard = DetectionShard(np.array([139, 2**40]), detections[::-1].copy(), 0.0, 0.0)
    folder = str(tmp_path / "artifacts")
    sha256 = ArtifactStorage(folder).put(detections_to_bytes(shard), DETECTIONS_SUFFIX)
    store = Store(open_database(str(database)))
    sweep = samples.begin(store, artifacts_url=folder)
    variant, key = samples.THREADS, key_of("accuracy", samples.THREADS.label)
    samples.measure(store, sweep, samples.Measured(variant, 0.5, 0.6))
    made = samples.artifact(variant.label)
    scores = samples.accuracy(variant.label, 0.5)
    store.put_accuracy(
        key, made.sha256, samples.DATASET, type(scores)(**vars(scores) | {"detections_sha256": sha256}), {}
    )
    assert store.statuses(sweep)[variant_key(samples.DETECTOR, variant)] == "done"
    return variant.label, shard


def test_exported_detections_are_a_coco_results_file(exportable: tuple[str, DetectionShard], tmp_path: Path) -> None:
    label, shard = exportable
    out = tmp_path / "detections.json"
    run("export", "--detections", label, "--out", str(out))
    first, second = json.loads(out.read_text())
    assert (first["image_id"], first["category_id"], second["image_id"]) == (139, 90, 2**40)
    assert np.array_equal(np.float32(first["bbox"]), shard.detections[0, 1:5])
    assert np.float32(second["score"]) == shard.detections[1, 5]
    assert sorted(path.name for path in tmp_path.glob("*json*")) == ["detections.json"]


def test_export_replaces_a_file_only_by_force(exportable: tuple[str, DetectionShard], tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    out.write_text("mine")
    arguments = ["export", "--detections", exportable[0], "--out", str(out)]
    assert "exists; name another file, or add --force" in mistake(*arguments)
    assert out.read_text() == "mine"
    run(*arguments, "--force")
    assert len(json.loads(out.read_text())) == 2


def test_export_says_what_is_missing_and_writes_nothing(exportable: tuple[str, DetectionShard], tmp_path: Path) -> None:
    out = tmp_path / "new.json"
    label = exportable[0]
    elsewhere = ["--artifacts", str(tmp_path / "elsewhere")]
    assert "--artifacts` names another place" in mistake("export", "--detections", label, "--out", str(out), *elsewhere)
    failed = samples.PER_TENSOR.label
    assert "has no detections: the file is float" in mistake("export", "--detections", failed, "--out", str(out))
    nowhere = str(tmp_path / "nowhere" / "new.json")
    assert "does not exist" in mistake("export", "--detections", label, "--out", nowhere)
    assert not out.exists()


def test_db_upgrade_makes_a_database_only_when_asked(tmp_path: Path) -> None:
    path = str(tmp_path / "new.db")
    result = runner.invoke(db.app, ["upgrade", "--db", path])
    assert isinstance(result.exception, DatabaseMistake)
    assert "upgraded from nothing to 0006" in run("upgrade", "--create", "--db", path, app=db.app).stdout
    assert "is at schema 0006 already" in run("upgrade", "--db", path, app=db.app).stdout


def test_db_check_tells_the_schema_and_the_number_of_sweeps(database: Path) -> None:
    assert run("check", app=db.app).stdout == f"{database}: schema 0006, whole, 1 sweeps\n"
    (facts,) = json.loads(run("check", "--json", app=db.app).stdout)
    assert facts == {"database": str(database), "schema": "0006", "sweeps": 1}


def test_json_has_no_nan_and_tables_show_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [text_of("name"), number_of("size", "MB", ".1f", 1e-6), Column("upper", lambda row: row["name"].upper())]
    rows = [{"name": "[red]a", "size": float("nan")}, {"name": "b", "size": 2_500_000.0}]
    print_rows(rows, columns, json=True)
    assert json.loads(capsys.readouterr().out) == [{"name": "[red]a", "size": None}, {"name": "b", "size": 2_500_000.0}]
    print_rows(rows[1:], columns)
    assert capsys.readouterr().out.split() == ["name", "MB", "upper", "b", "2.5", "B"]
    print_rows([{"name": "[red]a", "size": None}], columns, title="[bold]")
    assert capsys.readouterr().out.split() == ["[bold]", "name", "MB", "upper", "[red]a", "-", "[RED]A"]


def test_the_commands_load_nothing_heavy_before_they_run() -> None:
    code = (
        "import sys, orchestrator.cli.results, orchestrator.cli.db;"
        "print(sorted({'sqlalchemy', 'alembic', 'numpy', 'ray', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _row(variant: str, ratio: float, feasible: bool | None = True, status: str = "done") -> dict[str, Any]:
    low, high = ratio - 0.02, ratio + 0.02
    names = ("variant", "latency_ratio", "latency_ratio_low", "latency_ratio_high", "feasible", "status", "ap_loss")
    return dict(zip(names, (variant, ratio, low, high, feasible, status, 0.004), strict=True)) | {
        "latency_noisy": False
    }


def test_the_verdict_names_the_fastest_within_the_budget_and_its_rivals() -> None:
    rows = [_row("one", 0.35), _row("two", 0.38), _row("three", 0.5), _row("four", 0.3, feasible=False)]
    assert verdict(rows, has_budget=True) == (
        "fastest within the budget: one\n"
        "  0.35 of float32's time, AP loss +0.004; 1 more as fast within their intervals"
    )


def test_the_verdict_calls_nothing_best_when_nothing_is_feasible_or_measured() -> None:
    assert verdict([_row("one", 0.35, feasible=False)], has_budget=True) == "no variant is within the budget"
    assert verdict([_row("one", 0.35) | {"ap_loss": None}], has_budget=False).endswith(
        "no reference to compare AP with"
    )
    assert verdict([_row("one", 0.35, status="failed")], has_budget=True) == "no variant has been measured yet"


def test_the_verdict_calls_nothing_fastest_that_is_noisy() -> None:
    rows = [_row("one", 0.5), _row("two", 0.35) | {"latency_noisy": True}]
    assert verdict(rows, has_budget=False) == "fastest: one\n  0.50 of float32's time, AP loss +0.004"
    assert verdict(rows[1:], has_budget=True) == (
        "no variant is called the fastest: every latency within the budget is noisy; sweep again on a quiet machine"
    )
