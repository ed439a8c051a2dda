"""What a search says at its end."""

from dataclasses import replace

import pytest

from orchestrator.study import StudyOutcome
from orchestrator.summary import Found, report, summary
from results import queries
from results.connect import open_database
from results.store import Store
from results.sweep_record import variant_key
from tests.results import samples

VERDICTS = {"feasible": 1, "infeasible": 1, "no_gain": 1, "unsupported": 1}


def _found(tmp_path, budget: float | None = 0.01, **changed: object) -> Found:
    """The sample study as its end is told: DYNAMIC won, unless nothing is within the budget."""
    engine = open_database(str(tmp_path / "study.db"))
    key = samples.fill_study(Store(engine), budget_max_loss=budget, budget_metric="AP" if budget else None)
    is_won = budget != 0.001
    winner = variant_key(samples.DETECTOR, samples.DYNAMIC) if is_won else None
    outcome = StudyOutcome(key, 7, winner, 4, VERDICTS, 280, 480, "4 trials, as many as the study may have", 12.0)
    rows = [dict(row) for row in queries.leaderboard(engine, key)]
    for row in rows:
        if row["variant"] == samples.DYNAMIC.label:
            row.update(changed)
            row["verdict"] = "feasible" if is_won else "infeasible"
    return Found(outcome, rows, queries.find_sweep(engine, key), queries.nearest(engine, key), error_rate=0.05)


def _text(found: Found) -> str:
    return "\n".join(summary(found, "--sweep study --db study.db"))


def test_the_winner_is_named_with_what_it_gains_and_costs(tmp_path):
    own = {"own_latency_ratio": 0.8, "own_latency_ratio_low": 0.75, "own_latency_ratio_high": 0.84}
    lines = summary(_found(tmp_path, **own, confirmed_by="pycocotools 2.0.11"), "--db study.db")
    assert lines[0] == "study: 80 images of sample set, AP loss <= 0.01"
    for line in (
        f"winner   {samples.DYNAMIC.label}",
        "gains    1.25 times as fast as LiteRT float32 [1.19, 1.33], from a second measurement, of its own bytes",
        "         16.00 ms an image instead of 20.00; 7.0 MB instead of 7.0",
        "costs    AP loss +0.0100 [-0.0050, +0.0200] on the 80 images that it was chosen on",
        "         which flatters: the least of many noisy losses is too low",
        "         AP loss +0.0200 [-0.0100, +0.0500] on 20 confirmation images, which had no part in the choice",
        "         that is over the budget",
        "sure     pycocotools 2.0.11 gives the same AP on all 80 images",
        "         1 more may be as fast, within the error of measurement; they were not scored further",
        "         of variants within the budget, at most 5% are taken for over it early, by design",
        "tried    4 of 5 variants: 1 feasible, 1 infeasible, 1 no gain, 1 unsupported",
        "spent    280 images inferred of the 480 that scoring every build takes (58.3%); 12 s",
        "         ended by: 4 trials, as many as the study may have",
        f"export   quantsweep export {samples.DYNAMIC.label} --out FOLDER --db study.db",
    ):
        assert line in lines


def test_without_confirmation_images_the_loss_is_called_optimistic_all_the_same(tmp_path):
    text = _text(_found(tmp_path, confirm_ap_loss=None))
    assert (
        "which flatters: the least of many noisy losses is too low; `evaluation: {search: ..., confirm: ...}`" in text
    )
    assert "confirmation images, which" not in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.05, 1.15, "nothing: it takes 1.10 times LiteRT float32's time [1.05, 1.15], from a second measurement"),
        (0.99, 1.21, "which may be none: the interval holds 1"),
    ],
)
def test_a_winner_that_is_not_faster_than_the_reference_is_not_praised(tmp_path, low, high, said):
    own = {"own_latency_ratio": 1.1, "own_latency_ratio_low": low, "own_latency_ratio_high": high}
    assert said in _text(_found(tmp_path, **own))


def test_an_unconfirmed_score_is_not_called_confirmed(tmp_path):
    text = _text(_found(tmp_path))
    assert "its AP was not confirmed by pycocotools" in text
    assert "from one measurement" in text


def test_if_nothing_is_feasible_nothing_is_called_best_and_the_nearest_say_what_they_need(tmp_path):
    found = _found(tmp_path, budget=0.001)
    lines = summary(found, "--db study.db")
    text = "\n".join(lines)
    assert "result   no variant is known to be within the budget (AP loss <= 0.001); nothing is called best" in lines
    assert f"nearest  {samples.DYNAMIC.label}" in lines
    assert "0.80 of float32's time; needs a budget of 0.0100 instead of 0.001" in text
    assert "winner" not in text
    assert "quantsweep export" not in text


def test_json_has_the_winner_as_the_leaderboard_has_it(tmp_path):
    found = _found(tmp_path)
    told = report(found)
    assert told["winner"] == next(row for row in found.rows if row["variant"] == samples.DYNAMIC.label)
    assert told["nearest"] == []
    assert told["front"] == []
    assert {name: told[name] for name in ("trials", "verdicts", "images_inferred", "images_exhaustive", "study")} == {
        "trials": 4, "verdicts": VERDICTS, "images_inferred": 280, "images_exhaustive": 480, "study": "study",
    }  # fmt: skip
    assert told["stopped_by"] == "4 trials, as many as the study may have"
    assert told["study_key"] == found.outcome.sweep_key


def test_json_has_the_nearest_only_if_nothing_is_feasible(tmp_path):
    found = _found(tmp_path, budget=0.001)
    told = report(found)
    assert told["winner"] is None
    assert told["nearest"] == [dict(row) for row in found.nearest] != []


def test_the_front_holds_what_no_feasible_variant_beats_in_every_objective(tmp_path):
    found = _found(tmp_path)
    template = next(row for row in found.rows if row["variant"] == samples.DYNAMIC.label)

    def row(name: str, ratio: float, loss: float, size: int, verdict: str = "feasible") -> dict:
        changed = {"latency_ratio": ratio, "verdict_loss": loss, "size_bytes": size, "verdict": verdict}
        return {**template, **changed, "variant": name, "variant_key": name}

    rows = [
        row("fast", 0.5, 0.02, 4),
        row("exact", 0.9, 0.0, 4),
        row("beaten", 0.9, 0.02, 4),
        row("small", 0.9, 0.02, 2),
        row("twin", 0.5, 0.02, 4),
        row("not judged", 0.1, -1.0, 1, "no_gain"),
    ]
    both = replace(found, rows=rows, objectives=("latency", "ap_loss"))
    assert [each["variant"] for each in both.front] == ["fast", "twin", "exact"]
    sizes = replace(found, rows=rows, objectives=("latency", "ap_loss", "size"))
    assert [each["variant"] for each in sizes.front] == ["fast", "twin", "exact", "small"]
    assert replace(found, rows=rows).front == []
    tied = [row("trained well", 0.9, 0.01, 2), row("trained badly", 0.9, 0.02, 2)]
    assert [each["variant"] for each in replace(found, rows=tied, objectives=("latency", "size")).front] == [
        "trained well"
    ]


def test_what_was_not_decided_is_not_called_infeasible(tmp_path):
    found = _found(tmp_path, budget=0.001)
    undecided = {"noisy": 2, "unsettled": 3}
    text = _text(replace(found, outcome=replace(found.outcome, verdicts=undecided), nearest=[]))
    assert "2 latencies were disturbed, and make no winner" in text
    assert "3 were not decided when it ended; with a higher limit it goes on" in text
    assert "nearest  nothing came as far as a score" in text


def test_a_loss_of_nothing_has_no_minus(tmp_path):
    found = _found(tmp_path, confirm_ap_loss=-1e-9, confirm_ap_loss_low=-0.001)
    assert "AP loss +0.0000 [-0.0010, +0.0500] on 20 confirmation images" in _text(found)


def test_a_relative_loss_is_told_as_a_share(tmp_path):
    found = _found(tmp_path, budget_loss=0.02, verdict_loss_low=-0.01, verdict_loss_high=0.04)
    relative = replace(found, sweep={**found.sweep, "budget_relative": True, "budget_max_loss": 0.05})
    text = _text(relative)
    assert "AP loss +2.00 % [-1.00, +4.00] of LiteRT float32's AP on the 80 images" in text
    assert "AP loss <= 0.05 of the reference's" in text
