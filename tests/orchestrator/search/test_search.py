import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.budget import Budget
from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.objectives import LeastLatency, Objective, Pareto
from orchestrator.search.rungs import Rung
from orchestrator.search.search import Rules, Search
from orchestrator.search.stops import StopRules
from tasks.types import LossInterval, Verdict
from tests.orchestrator.search.fake_laboratory import Facts, FakeLaboratory, Listening, Watching, latency, variant

BUDGET = Budget("AP", 0.02, is_relative=False)
ALL = (Rung(80, 0.95, True),)
LOOKS = (Rung(20, 0.99, False), Rung(40, 0.99, False), Rung(80, 0.95, True))


@dataclass
class Trial:
    """A search that is over, and everybody who took part."""

    search: Search
    laboratory: FakeLaboratory
    strategy: Listening
    observer: Watching
    winner: Candidate | None

    def kind(self, number: int) -> str:
        verdict = next(each.verdict for each in self.search.candidates if each.ask.number == number)
        assert verdict is not None
        return verdict.kind


def search(
    facts: list[Facts],
    looks: tuple[Rung, ...] = LOOKS,
    objective: Objective | None = None,
    budget: Budget | None = BUDGET,
    in_flight: int = 8,
    stops: StopRules | None = None,
    warm: int = 0,
    clock: "list[float] | None" = None,
    ends_trainings: bool = False,
    **laboratory: object,
) -> Trial:
    where = FakeLaboratory(facts, **laboratory)  # type: ignore[arg-type]
    strategy, observer = Listening(len(facts), warm), Watching()
    rules = Rules(
        looks, budget, objective or LeastLatency(), in_flight, stops or StopRules(), ends_trainings,
        is_own_fault=lambda failure: failure.reason != "worker_lost",
    )  # fmt: skip
    times = iter(clock or [])
    running = Search(strategy, where, rules, observer, clock=lambda: next(times, 1e9) if clock else 0.0)
    return Trial(running, where, strategy, observer, running.run())


RATIOS = st.sampled_from([0.2, 0.25, 0.3, 0.4, 0.5, 0.8, 1.1])
LOSSES = st.sampled_from([-0.01, 0.0, 0.01, 0.02, 0.021, 0.03, 0.1])
FACTS = st.builds(
    Facts,
    ratio=RATIOS,
    loss=LOSSES,
    half_width=st.sampled_from([0.0, 0.01, 0.06]),
    size=st.integers(1, 3),
    is_noisy=st.sampled_from([False, False, False, True]),
    fails_at=st.sampled_from(["", "", "", "", "make", "time", "look"]),
    curve=st.sampled_from([(), (), (3.0, 2.0, 1.0), (1.0, 9.0, 9.0, 9.0)]),
    is_own_fault=st.booleans(),
    doubt=st.sampled_from([0.0, 0.005, 0.05]),
)
SPACES = st.lists(FACTS, min_size=1, max_size=14)
MANNERS = st.fixed_dictionaries(
    {
        "in_flight": st.integers(1, 16),
        "width": st.integers(1, 4),
        "times_elsewhere": st.booleans(),
        "training_width": st.integers(1, 3),
        "share_at_once": st.sampled_from([0.0, 0.3, 1.0]),
        "random": st.integers(0, 2**32 - 1).map(random.Random),
    }
)
"""How a laboratory answers, and how many candidates there are at a time."""


def fastest(facts: list[Facts]) -> float | None:
    return min((each.ratio for each in facts if each.can_win and each.loss <= BUDGET.limit), default=None)


@given(SPACES, MANNERS, st.sampled_from([ALL, LOOKS]))
@settings(deadline=None, max_examples=300)
def test_the_winner_is_the_fastest_within_the_budget_whatever_the_order_of_answers(facts, manners, looks):
    found = search(facts, looks, **manners)

    assert (found.winner.ratio if found.winner else None) == fastest(facts)
    assert found.winner is None or found.winner.is_confirmed


@given(SPACES, MANNERS)
@settings(deadline=None, max_examples=150)
def test_every_variant_is_asked_for_once_and_its_verdict_is_told_once(facts, manners):
    found = search(facts, **manners)

    assert sorted(number for number, _ in found.strategy.told) == list(range(len(facts)))
    assert sorted(found.observer.settlements) == sorted(found.strategy.told)
    assert found.search.stopped_by == "every variant of the space was asked for"


@given(SPACES, MANNERS)
@settings(deadline=None, max_examples=150)
def test_a_feasible_verdict_is_on_all_images_and_no_image_is_inferred_twice(facts, manners):
    found = search(facts, **manners)

    for candidate in found.search.candidates:
        assert candidate.verdict.kind != "feasible" or candidate.verdict.images == candidate.verdict.all_images == 80
        assert candidate.verdict.is_partial == (0 < candidate.verdict.images < 80)
    assert found.laboratory.images_inferred <= 80 * len(facts)
    assert len(found.laboratory.looks) == len(set(found.laboratory.looks))


@given(SPACES, MANNERS)
@settings(deadline=None, max_examples=150)
def test_verdicts_say_what_is_true(facts, manners):
    found = search(facts, **manners)

    best = fastest(facts)
    for number, each in enumerate(facts):
        kind = found.kind(number)
        broken = each.fails_at and not (each.is_noisy and each.fails_at == "look")
        if kind in ("unsupported", "failed"):
            assert broken and (kind == "unsupported") == each.is_own_fault
        elif kind == "noisy":
            assert each.is_noisy
        elif kind == "feasible":
            assert each.loss <= BUDGET.limit
        elif kind == "infeasible":
            assert each.loss > BUDGET.limit
        else:
            assert kind in ("dominated", "no_gain") and each.ratio >= best


@given(SPACES, MANNERS)
@settings(deadline=None, max_examples=150)
def test_nothing_is_looked_at_that_a_feasible_variant_already_beats(facts, manners):
    laboratory = FakeLaboratory(facts, **{name: value for name, value in manners.items() if name != "in_flight"})
    running: list[Search] = []
    look = laboratory.look

    def watched(candidate, rung, then):
        assert all(candidate.ratio < rival.ratio for rival in running[0].feasible)
        look(candidate, rung, then)

    laboratory.look = watched  # type: ignore[method-assign]
    running.append(Search(Listening(len(facts)), laboratory, Rules(LOOKS, BUDGET, in_flight=manners["in_flight"])))
    running[0].run()


@given(SPACES, MANNERS)
@settings(deadline=None, max_examples=100)
def test_no_more_candidates_than_allowed_are_without_a_verdict(facts, manners):
    laboratory = FakeLaboratory(facts, **{name: value for name, value in manners.items() if name != "in_flight"})
    running: list[Search] = []
    make = laboratory.make

    def watched(candidate, then):
        undecided = [each for each in running[0].candidates if each.verdict is None]
        begun = [each for each in undecided if not (each.is_untrained and each.latency)]
        assert len(begun) <= manners["in_flight"] and len(undecided) <= 2 * manners["in_flight"]
        make(candidate, then)

    laboratory.make = watched  # type: ignore[method-assign]
    running.append(Search(Listening(len(facts)), laboratory, Rules(LOOKS, BUDGET, in_flight=manners["in_flight"])))
    running[0].run()


@given(SPACES, MANNERS, st.sampled_from([("latency", "ap_loss"), ("latency", "size"), ("latency", "ap_loss", "size")]))
@settings(deadline=None, max_examples=200)
def test_what_nothing_beats_in_every_value_is_never_given_up(facts, manners, names):
    found = search(facts, objective=Pareto(names), **manners)

    def values(each: Facts) -> tuple[float, ...]:
        known = {"latency": each.ratio, "ap_loss": each.loss, "size": each.size}
        return tuple(known[name] for name in names)

    able = {number: each for number, each in enumerate(facts) if each.can_win and each.loss <= BUDGET.limit}
    for number, each in able.items():
        mine = values(each)
        others = [values(other) for other in able.values()]
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in others):
            assert found.kind(number) == "feasible"


OWN = st.lists(
    st.tuples(
        st.floats(0.2, 1.0), LOSSES, st.sampled_from([None, 0.3, 0.7, 1.3]), st.sampled_from(["", "", "confirm"])
    ),
    min_size=1,
    max_size=10,
    unique_by=lambda each: each[0],
)


@given(OWN, MANNERS)
@settings(deadline=None, max_examples=200)
def test_a_winner_stands_only_after_its_own_second_measurement(drawn, manners):
    facts = [Facts(ratio, loss, 0.001, own_ratio=own, fails_at=fails) for ratio, loss, own, fails in drawn]

    found = search(facts, **manners)

    assert (found.winner.ratio if found.winner else None) == _after_confirmations(facts)


def _after_confirmations(facts: list[Facts]) -> float | None:
    """The ratio of the fastest once every one that came first was measured again."""
    left = {number: each.ratio for number, each in enumerate(facts) if each.loss <= BUDGET.limit}
    confirmed: set[int] = set()
    while left:
        first = min(left, key=lambda number: left[number])
        if first in confirmed:
            return left[first]
        confirmed.add(first)
        each = facts[first]
        if each.fails_at:
            del left[first]
        elif each.own_ratio is not None and abs(each.own_ratio - each.ratio) > 2 * each.half_width:
            left[first] = each.own_ratio
    return None


def test_the_next_best_has_its_turn_when_the_winner_turns_out_slower():
    facts = [Facts(0.3, 0.0, 0.01, own_ratio=0.6), Facts(0.4, 0.0, 0.01), Facts(0.5, 0.0, 0.01)]

    found = search(facts)

    assert found.winner.ask.number == 1
    assert found.observer.confirmations == [0, 1]
    assert [kind for number, kind in found.observer.settlements if number == 1] == ["dominated", "feasible"]
    assert [kind for number, kind in found.strategy.told if number == 1] == ["dominated"]
    assert found.search.candidates[0].ratio == 0.6
    assert found.kind(2) == "dominated"


def test_a_second_measurement_that_overlaps_the_first_changes_nothing():
    found = search([Facts(0.3, 0.0, 0.02, own_ratio=0.33), Facts(0.31, 0.0, 0.02)])

    assert found.winner.ask.number == 0
    assert (found.winner.ratio, found.winner.own_latency.ratio) == (0.3, 0.33)


def test_a_variant_that_fails_when_it_is_confirmed_is_no_winner():
    found = search([Facts(0.3, 0.0, fails_at="confirm"), Facts(0.4, 0.0)])

    assert found.winner.ask.number == 1
    assert found.kind(0) == "unsupported"
    assert [kind for number, kind in found.strategy.told if number == 0] == ["feasible"]


def test_an_interval_above_the_budget_ends_a_candidate_on_some_of_the_images():
    found = search([Facts(0.3, 0.2, doubt=0.05), Facts(0.4, 0.0)])

    ended = found.search.candidates[0].verdict
    assert (ended.kind, ended.images, ended.is_partial) == ("infeasible", 20, True)
    assert ended.interval.low > BUDGET.limit
    assert found.laboratory.images_inferred == 20 + 80


def test_a_loss_over_the_budget_that_is_not_sure_ends_nothing():
    found = search([Facts(0.3, 0.02, doubt=0.05, bias=0.03)])

    assert found.kind(0) == "feasible"
    assert found.laboratory.looks == [(0, 20), (0, 40), (0, 80)]


def test_a_misleading_interval_can_end_the_optimum_and_is_the_only_thing_that_can():
    facts = [Facts(0.3, 0.0, bias=0.5), Facts(0.4, 0.0)]

    assert search(facts, LOOKS).winner.ask.number == 1
    assert search(facts, ALL).winner.ask.number == 0


def test_an_early_look_alone_never_makes_a_candidate_feasible():
    found = search([Facts(0.3, 0.03, bias=-0.5)])

    assert found.winner is None
    assert found.search.candidates[0].verdict.images == 80


def test_dominated_says_that_intervals_are_apart_and_no_gain_that_they_are_not():
    found = search([Facts(0.3, 0.0, 0.01), Facts(0.315, 0.0, 0.01), Facts(0.4, 0.0, 0.01), Facts(0.3, 0.0, 0.01)])

    assert [found.kind(number) for number in range(4)] == ["feasible", "no_gain", "dominated", "no_gain"]
    assert found.laboratory.images_inferred == 80


def test_without_a_budget_the_fastest_wins_whatever_it_loses():
    assert search([Facts(0.3, 0.9), Facts(0.4, 0.0)], budget=None).winner.ask.number == 0


def test_nothing_feasible_gives_no_winner_and_confirms_nothing():
    found = search([Facts(0.3, 0.9), Facts(0.4, 0.5, is_noisy=True)])

    assert found.winner is None
    assert found.laboratory.calls["confirm"] == 0


def test_a_search_asks_for_no_more_than_its_trials_and_settles_those_in_flight():
    found = search([Facts(0.3, 0.0)] * 10, stops=StopRules(trials=3), in_flight=2)

    assert len(found.search.candidates) == len(found.strategy.told) == 3
    assert found.observer.stops == ["3 trials, as many as the study may have"]


def test_what_is_known_already_is_no_trial():
    found = search([Facts(0.3, 0.0)] * 10, stops=StopRules(trials=3), warm=4)

    assert len(found.search.candidates) == 7
    assert found.search.spent.trials == 3


def test_a_search_ends_after_enough_verdicts_without_a_better_variant():
    slower = [Facts(0.3 + 0.01 * number, 0.0) for number in range(20)]

    found = search(slower, stops=StopRules(patience=5), in_flight=1)

    assert len(found.search.candidates) == 6
    assert found.observer.stops == ["no better feasible variant in 5 verdicts"]


def test_patience_waits_for_the_first_feasible_variant():
    found = search([*[Facts(0.3, 0.9)] * 10, Facts(0.5, 0.0)], stops=StopRules(patience=2), in_flight=1)

    assert found.winner.ask.number == 10


def test_when_the_images_are_spent_what_waits_stays_unsettled():
    found = search([Facts(0.4, 0.0), Facts(0.3, 0.9), Facts(0.2, 0.9)], ALL, stops=StopRules(images=100))

    assert found.laboratory.images_inferred == 160
    assert [found.kind(number) for number in range(3)] == ["unsettled", "infeasible", "infeasible"]
    assert found.winner is None


def test_when_the_time_is_over_what_waits_stays_unsettled():
    found = search([Facts(0.3, 0.0)] * 3, stops=StopRules(seconds=10), clock=[0.0, 1.0, 2.0])

    assert {kind for _, kind in found.strategy.told} == {"unsettled"}
    assert found.laboratory.images_inferred == 0


@pytest.mark.parametrize("fails_at", ["make", "time", "look"])
def test_a_failure_of_the_moment_is_told_from_one_that_comes_again(fails_at):
    facts = Facts(0.3, 0.0, fails_at=fails_at)

    assert search([facts]).kind(0) == "unsupported"
    assert search([replace(facts, is_own_fault=False)]).kind(0) == "failed"


def test_the_strategy_hears_of_artifact_latency_and_each_early_look():
    found = search([Facts(0.3, 0.0)])

    assert found.strategy.noted == [0, 0, 0, 0]


def test_what_is_known_already_is_looked_at_even_if_it_cannot_win_since_that_costs_nothing():
    found = search([Facts(0.3, 0.0), Facts(0.4, 0.0), Facts(0.5, 0.0)], warm=2)

    assert [found.kind(number) for number in range(3)] == ["feasible", "feasible", "dominated"]


def settled(number: int, ratio: float, kind: str, is_told: bool) -> Candidate:
    interval = LossInterval(0.0, 0.0, 0.0, 0.95, 200, 0, 80)
    return Candidate(
        Ask(number, variant(number)), latency=latency(ratio), interval=interval, is_told=is_told,
        verdict=Verdict(kind, 80, 80, interval, "it was"),
    )  # fmt: skip


def test_what_an_earlier_run_settled_and_told_counts_and_is_not_told_again():
    laboratory, strategy = FakeLaboratory([Facts(0.1, 0.9), Facts(0.4, 0.0), Facts(0.3, 0.0)]), Listening(2)
    earlier = [settled(2, 0.3, "feasible", is_told=True)]
    resumed = Search(strategy, laboratory, Rules(LOOKS, BUDGET), earlier=earlier)

    assert resumed.run() is earlier[0]
    assert sorted(strategy.told) == [(0, "infeasible"), (1, "dominated")]
    assert resumed.spent.trials == 3


def test_what_an_earlier_run_settled_and_could_not_tell_is_told_when_it_is_asked_for_again():
    laboratory, strategy = FakeLaboratory([Facts(0.3, 0.0), Facts(0.4, 0.0)]), Listening(2)
    resumed = Search(strategy, laboratory, Rules(LOOKS, BUDGET), earlier=[settled(0, 0.3, "feasible", is_told=False)])

    assert resumed.run().ask.number == 0
    assert strategy.told == [(0, "feasible"), (1, "dominated")]
    assert laboratory.images_inferred == 0


def test_what_is_known_already_does_not_try_the_patience():
    found = search([Facts(0.3, 0.0), *[Facts(0.4, 0.0)] * 10], stops=StopRules(patience=2), warm=5, in_flight=1)

    assert len(found.search.candidates) == 7


GOING_WELL, GOING_BADLY = (1.0, 0.9, 0.8, 0.7, 0.6), (1.0, 1.2, 1.3, 1.4, 1.5)


def test_what_could_not_win_is_never_trained():
    found = search([Facts(0.3, 0.0, curve=GOING_WELL), Facts(0.3, 0.0), Facts(0.5, 0.0, curve=GOING_WELL)])

    assert found.laboratory.trained == []
    assert [found.kind(number) for number in range(3)] == ["no_gain", "feasible", "dominated"]


def test_a_training_begins_once_nothing_cheaper_is_left_to_decide_and_its_own_artifact_is_scored():
    found = search([Facts(0.3, 0.0, curve=GOING_WELL), Facts(0.3, 0.5), Facts(0.5, 0.0)])

    assert found.winner.ask.number == 0 and found.winner.artifact.sha256 == "1" * 64
    assert found.laboratory.trained == [(0, 4)]
    assert [number for number, _ in found.laboratory.looks][-1] == 0
    assert found.winner.training.is_over and not found.winner.is_untrained


def test_a_training_that_goes_badly_is_ended_and_the_next_one_has_its_turn():
    facts = [Facts(0.3, 0.0, curve=GOING_BADLY), Facts(0.4, 0.0, curve=GOING_WELL)]
    found = search(facts, ends_trainings=True)

    assert found.laboratory.trained == [(0, 3), (1, 4)]
    assert (found.kind(0), found.winner.ask.number) == ("unpromising", 1)
    assert "never below the 1.000 of untrained weights" in found.search.candidates[0].verdict.because
    assert search(facts).winner.ask.number == 0


def test_a_training_ends_when_a_faster_candidate_turns_out_feasible_meanwhile():
    long = tuple(1 / (1 + point) for point in range(40))
    found = search([Facts(0.3, 0.0, curve=GOING_WELL), Facts(0.3, 0.0, curve=long)], training_width=2)

    assert found.winner.ask.number == 0 and found.kind(1) == "no_gain"
    assert dict(found.laboratory.trained)[1] < 39


def test_what_waits_for_a_training_keeps_nobody_from_being_asked_for():
    found = search([*[Facts(0.6, 0.0, curve=GOING_WELL)] * 6, Facts(0.2, 0.0)], in_flight=8)

    assert found.winner.ask.number == 6 and found.laboratory.trained == []


def test_trainings_begin_when_as_many_wait_as_may_be_in_flight_so_that_a_strategy_learns_from_them():
    found = search([*[Facts(0.6, 0.0, curve=GOING_WELL)] * 6, Facts(0.2, 0.0)], in_flight=2)

    assert found.winner.ask.number == 6 and 1 <= len(found.laboratory.trained) < 6


def test_a_training_that_several_candidates_share_counts_once_among_the_others():
    shared = [Facts(0.3 + number / 1000, 0.5, curve=(1.0, 0.2, 0.2, 0.2, 0.2), training="a") for number in range(3)]
    worse = Facts(0.4, 0.0, curve=(1.0, 0.9, 0.8, 0.7, 0.6), training="b")

    assert search([*shared, worse], ends_trainings=True).winner.ask.number == 3
    assert search([*[replace(each, training="") for each in shared], worse], ends_trainings=True).winner is None


def test_what_an_earlier_run_left_untrained_is_trained_when_its_rival_is_not_what_it_seemed():
    """The rival is slower when it is timed again; the candidate comes back from the database without an artifact."""
    facts = [Facts(0.2, 0.0, own_ratio=0.9), Facts(0.5, 0.0, curve=GOING_WELL)]
    took = latency(0.5)
    beaten = Candidate(Ask(1, variant(1)), latency=took, verdict=Verdict("dominated", 0, 80, None, ""), is_told=True)
    where = FakeLaboratory(facts)
    running = Search(Listening(1), where, Rules(LOOKS, BUDGET), Watching(), earlier=[beaten])

    assert running.run() is beaten and where.trained == [(1, 4)]


def test_a_training_that_fails_is_a_verdict():
    found = search([Facts(0.3, 0.0, curve=GOING_WELL, fails_at="train"), Facts(0.4, 0.0)])

    # The slower one is looked at first, since that is cheaper.
    assert (found.kind(0), found.winner.ask.number) == ("unsupported", 1)


def test_a_time_limit_ends_a_training():
    times = [0.0, *[1.0] * 8, *[99.0] * 400]
    found = search([Facts(0.3, 0.0, curve=GOING_WELL)], stops=StopRules(seconds=50), clock=times)

    assert found.winner is None and found.kind(0) == "unsettled"
