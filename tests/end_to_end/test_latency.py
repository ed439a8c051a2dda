"""Latencies from the command line: noise and its repetitions, direct comparisons, profiles."""

import json

import pytest

from tasks.latency import conditions
from tests.command import quantsweep

SPACE = "[{scheme: static_int8, toolchain: litert_quantizer, calibration_images: [2, 8]}]"


def sweep(folder, spec):
    arguments = ("--db", folder / "results.db", "--artifacts", folder / "artifacts", "--address", "in-process")
    return quantsweep("sweep", spec, *arguments, "--json")


@pytest.fixture(scope="module")
def quiet(world, tmp_path_factory, no_noise):
    folder = tmp_path_factory.mktemp("quiet")
    outcome = sweep(folder, world.spec("quiet", SPACE))
    assert outcome.code == 0, outcome.err
    return folder, json.loads(outcome.out)


@pytest.fixture(scope="module")
def noisy(world, tmp_path_factory):
    """A sweep on a machine whose conditions are never good enough."""
    folder = tmp_path_factory.mktemp("noisy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions, "MOST_OTHERS", -1.0)
        outcome = sweep(folder, world.spec("noisy", "[{scheme: float16}]", latency="retries: 1"))
        assert outcome.code == 0, outcome.err
        yield folder, json.loads(outcome.out), outcome.err


def test_a_noisy_measurement_is_repeated_within_the_limit_and_stays_marked(noisy):
    _, rows, told = noisy
    assert [row["latency_noisy"] for row in rows] == [True, True]
    assert [row["latency_attempts"] for row in rows] == [2, 2]
    assert told.count("noisy measurement, to be repeated later") == 2


def test_a_noisy_variant_is_never_the_winner(noisy):
    _, rows, _ = noisy
    assert [row["confirmed_by"] is not None for row in rows] == [row["is_reference"] for row in rows]


def test_a_finished_sweep_does_not_repeat_noisy_measurements_for_ever(noisy, world):
    folder, rows, _ = noisy
    outcome = sweep(folder, world.folder / "noisy.yaml")
    assert "no task was submitted" in outcome.err
    assert json.loads(outcome.out) == rows


def test_more_retries_go_on_with_a_noisy_measurement(noisy, world):
    folder, _, _ = noisy
    outcome = sweep(folder, world.spec("again", "[{scheme: float16}]", latency="retries: 2"))
    assert [row["latency_attempts"] for row in json.loads(outcome.out)] == [3, 3]


def test_a_quiet_measurement_is_made_once(quiet):
    _, rows = quiet
    assert [(row["latency_noisy"], row["latency_attempts"]) for row in rows] == [(False, 1)] * 3
    assert all(row["images_per_second"] > 0 and row["copies"] >= 1 for row in rows)


def test_the_winner_alone_is_measured_again_on_its_own_bytes(quiet):
    _, rows = quiet
    best = min((row for row in rows if row["feasible"]), key=lambda row: (row["latency_ratio"], row["ap_loss"]))
    assert [row["variant"] for row in rows if row["own_latency_ratio"] is not None] == [best["variant"]]
    assert best["own_latency_ratio_low"] <= best["own_latency_ratio"] <= best["own_latency_ratio_high"]


def test_two_variants_are_compared_directly_and_the_comparison_is_kept(quiet):
    folder, _ = quiet
    first, second = "litert-float32-converter-t1", "litert-static_int8-litert_quantizer-per_channel-cal2-seed0-t1"
    base = ("results", "compare", first, second, "--db", folder / "results.db", "--json")
    before = json.loads(quantsweep(*base).out)
    assert before[0]["measured"] is None or before[0].get("measured_ratio") is None
    outcome = quantsweep(*base, "--measure", "--max-seconds", "0.5")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert json.loads(quantsweep(*base).out) == found


def test_a_variant_cannot_be_compared_with_itself(quiet):
    folder, _ = quiet
    label = "litert-float32-converter-t1"
    outcome = quantsweep("results", "compare", label, label, "--db", folder / "results.db", "--measure")
    assert outcome.code == 2
    assert "nothing to tell" in outcome.err


def test_a_profile_is_taken_and_shown(quiet):
    folder, _ = quiet
    label = "litert-static_int8-litert_quantizer-per_channel-cal8-seed0-t1"
    show = ("results", "show", label, "--profile", "--db", folder / "results.db")
    missing = quantsweep(*show)
    assert missing.code == 2
    assert "quantsweep profile" in missing.err
    outcome = quantsweep("profile", label, "--db", folder / "results.db", "--seconds", "1")
    assert outcome.code == 0, outcome.err
    rows = json.loads(quantsweep(*show, "--json").out)
    assert sum(row["role"] == "convolution" for row in rows) >= 20
    assert abs(sum(row["time_share"] for row in rows) - 1) < 1e-6


def test_measuring_where_the_artifacts_are_gone_says_so(quiet, tmp_path):
    folder, _ = quiet
    outcome = quantsweep(
        "profile", "litert-float32-converter-t1", "--db", folder / "results.db", "--artifacts", tmp_path / "nowhere"
    )
    assert outcome.code == 2
    assert "--artifacts" in outcome.err
