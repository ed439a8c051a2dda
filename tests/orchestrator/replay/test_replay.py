from dataclasses import replace

import numpy as np
import pytest

from orchestrator.budget import Budget
from orchestrator.replay.drawn_images import DrawnImages
from orchestrator.replay.report import replay_all, summary
from orchestrator.replay.run import ReplayOptions, replay
from orchestrator.replay.strategies import STRATEGIES, ReplayStrategy, strategies_of
from orchestrator.search.stops import StopRules
from tasks.average_precision import average_precision
from tasks.errors import UserMistake
from tests.orchestrator.replay.recorded import FAST, FASTEST, GOOD, IMAGES, MEASURED, NOISY, SAME_STRUCTURE, SLOW

BUILDS = len({build for _, _, build in MEASURED.values()})
TRUSTED_BUILDS = BUILDS - 1
"""Without that whose latency is noisy: no search scores it."""

LISTED = ReplayStrategy("listed")


def test_a_table_s_own_images_are_each_there_once_in_another_order_for_each_seed(table):
    first, second = (DrawnImages.draw(table, seed) for seed in (0, 1))

    assert sorted(first.order) == sorted(second.order) == list(range(IMAGES))
    assert list(first.order) != list(second.order)
    assert list(first.order) == list(DrawnImages.draw(table, 0).order)


def test_drawn_images_are_as_many_as_asked_for_and_come_from_the_table(table):
    drawn = DrawnImages.draw(table, 0, images=1000)

    assert len(drawn) == 1000
    assert set(drawn.order) == set(range(IMAGES))


def test_the_loss_on_all_images_is_that_of_the_images_as_often_as_they_were_drawn(table):
    drawn, build = DrawnImages.draw(table, 3, images=100), table.entry_of(GOOD).build
    counts = np.bincount(drawn.order, minlength=IMAGES)
    reference, variant = (average_precision(table.matches[each], counts) for each in (table.reference_build, build))

    assert drawn.loss(build) == pytest.approx(reference - variant, abs=1e-12)
    assert drawn.interval(build, 100, 0.9).loss == drawn.loss(build)


def test_a_look_is_at_the_first_images_only(table):
    drawn, build = DrawnImages.draw(table, 3, images=100), table.entry_of(FASTEST).build
    other = replace(drawn, order=np.concatenate([drawn.order[:30], drawn.order[::-1][:70]]), _known={})

    assert drawn.interval(build, 30, 0.9) == other.interval(build, 30, 0.9)
    assert drawn.interval(build, 60, 0.9) != other.interval(build, 60, 0.9)


def test_the_optimum_is_the_fastest_within_the_budget_whose_latency_can_be_trusted(table):
    drawn = DrawnImages.draw(table, 0)

    assert drawn.optimum() is table.entry_of(GOOD)
    assert not drawn.is_feasible(table.entry_of(NOISY))
    assert not drawn.is_feasible(table.entry_of(FAST))
    assert DrawnImages.draw(replace(table, budget=Budget("AP", 1.0, False)), 0).optimum() is table.entry_of(FASTEST)


def test_the_exhaustive_search_infers_every_build_that_could_win_once_and_finds_the_optimum(table):
    run = replay(DrawnImages.draw(table, 0), STRATEGIES["exhaustive"], ReplayOptions())

    assert run.images_exhaustive == BUILDS * IMAGES
    assert run.images == TRUSTED_BUILDS * IMAGES
    assert run.is_optimum and run.is_as_fast and run.regret == 0
    assert run.verdicts == {"feasible": 4, "infeasible": 2, "noisy": 1, "unsupported": 1}
    assert run.trials == len(table.entries)


def test_find_best_goes_by_rising_latency_and_stops_at_the_first_feasible_variant(table):
    run = replay(DrawnImages.draw(table, 0), STRATEGIES["find_best"], ReplayOptions())

    # The two faster ones are over the budget; those of the same structure gain nothing.
    assert run.found == GOOD.label
    assert run.images == (1 + 3) * IMAGES
    assert run.verdicts == {"feasible": 1, "infeasible": 2, "no_gain": 1, "dominated": 2, "noisy": 1, "unsupported": 1}


def test_latencies_are_counted_once_a_structure(table):
    run = replay(DrawnImages.draw(table, 0), LISTED, ReplayOptions())

    assert run.timed == len({ratio for ratio, _, _ in MEASURED.values()} - {1.0})
    assert table.entry_of(GOOD).artifact.structure_sha256 == table.entry_of(SAME_STRUCTURE).artifact.structure_sha256


def test_interval_and_dominance_save_images_and_change_no_result(table):
    options = ReplayOptions(in_flight=1, stops=StopRules())

    def spent(**off: bool) -> int:
        run = replay(DrawnImages.draw(table, 0), replace(LISTED, **off), options)
        assert run.is_optimum
        return run.images

    neither = spent(has_dominance=False, has_interval=False)
    assert neither == TRUSTED_BUILDS * IMAGES
    assert spent() < min(spent(has_dominance=False), spent(has_interval=False))
    assert max(spent(has_dominance=False), spent(has_interval=False)) < neither


def test_regret_falls_from_that_of_the_reference_as_better_variants_are_found(table):
    run = replay(DrawnImages.draw(table, 0), LISTED, ReplayOptions(in_flight=1))

    (_, first), *found, (images, last) = run.curve
    assert first == pytest.approx(1 / 0.5 - 1)
    assert (SLOW.label, found[0][1]) == (table.entries[0].variant.label, pytest.approx(0.9 / 0.5 - 1))
    assert last == 0 and images == run.images_to_optimum
    assert [regret for _, regret in run.curve] == sorted((regret for _, regret in run.curve), reverse=True)


def test_a_search_that_stops_too_early_has_regret(table):
    run = replay(DrawnImages.draw(table, 0), LISTED, ReplayOptions(stops=StopRules(trials=2)))

    assert (run.trials, run.found, run.is_optimum, run.is_as_fast) == (2, SLOW.label, False, False)
    assert run.regret == pytest.approx(0.9 / 0.5 - 1)
    assert run.images_to_optimum is None and run.timed_to_optimum is None
    assert run.stopped_by == "2 trials, as many as the study may have"


def test_a_search_may_end_as_soon_as_the_optimum_is_found(table):
    options = ReplayOptions(in_flight=1, until_found=True)

    run = replay(DrawnImages.draw(table, 0), LISTED, options)

    # It is the third of the list.
    assert (run.trials, run.is_optimum, run.images) == (3, True, run.images_to_optimum)


def test_where_nothing_is_feasible_finding_nothing_is_right(table):
    hopeless = replace(
        table,
        budget=Budget("AP", 0.1, False),
        entries=tuple(entry for entry in table.entries if entry.variant in (FAST, FASTEST)),
    )
    run = replay(DrawnImages.draw(hopeless, 0), LISTED, ReplayOptions())

    assert (run.optimum, run.found, run.is_optimum, run.regret) == (None, None, True, 0.0)


def test_decisions_tell_wrong_ends_from_right_ones(table):
    run = replay(DrawnImages.draw(table, 0, images=400), LISTED, ReplayOptions(in_flight=1))

    early = [decision for decision in run.decisions if decision.is_early]
    assert early and all(decision.excess > 0 and decision.images < 400 for decision in early)
    assert not any(decision.is_wrong for decision in run.decisions)


@pytest.mark.parametrize("name", ["random", "tpe", "tpe_unconstrained", "nsga2", "qmc", "brute_force", "tpe-no-stops"])
def test_every_sampler_finds_the_optimum_of_a_small_table_and_is_the_same_again(table, name):
    options = ReplayOptions(stops=StopRules())
    first, again = (replay(DrawnImages.draw(table, 7), STRATEGIES[name], options) for _ in range(2))

    assert first.is_optimum and first.trials == len(table.entries)
    assert first == again


def test_runs_of_several_processes_are_those_of_one(table):
    strategies = strategies_of(["find_best", "random"])

    one, two = (replay_all(table, strategies, ReplayOptions(), range(3), jobs) for jobs in (1, 2))

    assert one.runs == two.runs
    assert [(run.strategy, run.seed) for run in one.runs] == [
        (name, seed) for name in ("find_best", "random") for seed in range(3)
    ]


def test_a_summary_counts_searches_that_never_found_the_optimum_as_the_longest(table):
    run = replay(DrawnImages.draw(table, 0), LISTED, ReplayOptions())
    lost = replace(run, images_to_optimum=None, is_optimum=False, regret=0.5)

    found = summary([run, lost, lost])

    assert found["images_to_optimum"] == {"reached": 1, "low": run.images_to_optimum, "median": None, "high": None}
    assert found["optimum_share"] == pytest.approx(1 / 3)
    assert found["regret"]["mean"] == pytest.approx(1 / 3)


def test_a_curve_is_the_regret_of_all_searches_at_each_number_of_images(table):
    run = replay(DrawnImages.draw(table, 0), LISTED, ReplayOptions())
    first, second = (replace(run, images=100, curve=curve) for curve in (((0, 1.0), (40, 0.0)), ((0, 1.0), (80, 0.5))))

    curve = summary([first, second])["curve"]

    assert curve["images"] == [0, 40, 80, 100]
    assert curve["mean"] == [1.0, 0.5, 0.25, 0.25]


def test_an_unknown_strategy_is_refused_with_near_ones():
    with pytest.raises(UserMistake, match="no strategy 'tpo'; did you mean tpe"):
        strategies_of(["random", "tpo"])
