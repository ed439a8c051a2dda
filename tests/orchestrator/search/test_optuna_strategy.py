"""The Optuna strategy: what it asks for, what it tells, and what is left of it after the driver died."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.budget import Budget
from orchestrator.search import samplers
from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.objectives import VALUES, objective_of
from orchestrator.search.optuna_strategy import OptunaStrategy, Settled, open_study
from orchestrator.search.rungs import rungs
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.search import Rules, Search
from orchestrator.search.stops import StopRules
from orchestrator.space import expand
from tasks.errors import DatabaseMistake
from tasks.types import Failure, Variant, Verdict, VerdictKind
from tests.orchestrator.search.scripted_laboratory import (
    IMAGES,
    UNSUPPORTED,
    Died,
    ScriptedLaboratory,
    Truth,
    interval,
    latency,
)

LIMIT = 0.02
AVAILABLE = [name for name, each in SAMPLERS.items() if each.package is None or samplers.is_installed(each.package)]
SPACE = [
    {"scheme": ["float16", "dynamic_int8"]},
    {"scheme": "static_int8", "toolchain": "litert_quantizer", "granularity": ["per_channel", "per_tensor"],
     "range_estimator": ["min_max", "fixed", "mse"], "calibration_images": [8, 32]},
    {"scheme": "bfloat16"},
]  # fmt: skip
VARIANTS = expand(SPACE, [1])[0].variants[1:]
TRUTHS = {
    variant: Truth(
        ratio=0.3 + 0.04 * ((5 * index) % len(VARIANTS)),
        loss=0.051 - 0.006 * ((5 * index) % len(VARIANTS)),
        failure=UNSUPPORTED if index % 6 == 5 else None,
    )
    for index, variant in enumerate(VARIANTS)
}
OPTIMUM = min(
    (v for v, truth in TRUTHS.items() if truth.failure is None and truth.loss <= LIMIT), key=lambda v: TRUTHS[v].ratio
)


def strategy(url: str | None = None, sampler: str = "tpe", **changed: Any) -> OptunaStrategy:
    study = open_study(url, "study", sampler, changed.pop("seed", 0), changed.pop("objectives", ("latency",)))
    return OptunaStrategy(study, VARIANTS, **{"limit": LIMIT} | changed)


def search(
    asks: OptunaStrategy, laboratory: ScriptedLaboratory | None = None, trials: int | None = None, in_flight: int = 4
) -> Search:
    """Goes on with what earlier runs of the study settled."""
    rules = Rules(
        rungs(IMAGES, 0.05),
        Budget("AP", LIMIT, is_relative=False),
        objective_of(asks.study.objectives),
        in_flight,
        StopRules(trials=trials),
    )
    return Search(asks, laboratory or ScriptedLaboratory(TRUTHS), rules, earlier=map(again, asks.settled()))


def again(settled: Settled) -> Candidate:
    about = settled.attributes
    found = candidate(
        Ask(settled.number, settled.variant), about["verdict"], about["images"], TRUTHS[settled.variant].ratio
    )
    found.is_told = True
    return found


def states(asks: OptunaStrategy) -> Counter[str]:
    return Counter(trial.state.name for trial in asks.study.trials)


def candidate(ask: Ask, kind: VerdictKind, images: int = IMAGES, ratio: float = 0.5, loss: float = 0.0) -> Candidate:
    """One with a verdict, whatever the strategy asked for."""
    found = interval(loss, images) if images else None
    return Candidate(ask, None, latency(ratio), interval=found, verdict=Verdict(kind, images, IMAGES, found, "because"))


def told(kind: VerdictKind, asks: OptunaStrategy | None = None, **about: Any) -> optuna.trial.FrozenTrial:
    asks = asks or strategy()
    ask = asks.ask()
    assert ask is not None
    asks.tell(candidate(ask, kind, **about))
    return asks.study.trials[ask.number]


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_sampler_finds_the_optimum_of_a_small_space_and_asks_for_nothing_twice(name: str) -> None:
    asks = strategy(sampler=name)
    found = search(asks)
    best = found.run()
    assert best is not None
    assert best.variant == OPTIMUM
    assert Counter(each.variant for each in found.candidates) == Counter(VARIANTS)
    assert [each.ask.number for each in found.candidates] == list(range(len(VARIANTS)))
    assert states(asks).keys() <= {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_the_best_trial_is_the_winner(name: str) -> None:
    for seed in range(5):
        asks = strategy(sampler=name, seed=seed)
        best = search(asks).run()
        assert best is not None
        trial = asks.study.best_trial
        assert (trial.number, trial.value) == (best.ask.number, best.ratio)
        assert trial.user_attrs["variant"] == best.variant.label
        assert trial.user_attrs["verdict"] == "feasible"


def test_a_fresh_study_of_the_same_seed_gives_the_same_trials() -> None:
    first, second, third = (strategy(seed=seed) for seed in (5, 5, 6))
    for asks in (first, second, third):
        search(asks).run()
    params = [[trial.params for trial in asks.study.trials] for asks in (first, second, third)]
    assert params[0] == params[1]
    assert params[0] != params[2]


def test_within_the_budget_is_complete_with_its_latency() -> None:
    trial = told("feasible", ratio=0.4, loss=0.015)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.4)
    assert trial.constraints == pytest.approx({"budget": -0.005})
    assert (trial.user_attrs["verdict"], trial.user_attrs["images"]) == ("feasible", IMAGES)
    assert trial.user_attrs["because"] == "because"


def test_a_feasible_loss_that_is_over_the_limit_by_rounding_breaks_no_constraint() -> None:
    assert told("feasible", loss=LIMIT + 1e-15).constraints == {"budget": 0.0}


def test_beyond_the_budget_is_complete_with_a_broken_constraint_also_on_a_part_of_the_images() -> None:
    whole = told("infeasible", loss=0.03)
    part = told("infeasible", loss=0.3, images=32)
    assert whole.state == part.state == TrialState.COMPLETE
    assert whole.constraints == pytest.approx({"budget": 0.01})
    assert part.constraints == pytest.approx({"budget": 0.28})
    assert part.user_attrs["images"] == 32


def test_an_interval_beyond_the_budget_breaks_the_constraint_even_if_the_loss_within_it_is_not() -> None:
    asks = strategy()
    ask = asks.ask()
    assert ask is not None
    skewed = interval(0.01, 32)
    skewed = type(skewed)(0.01, 0.03, 0.05, skewed.level, skewed.resamples, skewed.seed, skewed.images)
    asks.tell(
        Candidate(ask, None, latency(0.5), interval=skewed, verdict=Verdict("infeasible", 32, IMAGES, skewed, ""))
    )
    assert asks.study.trials[0].constraints == pytest.approx({"budget": 0.01})


@pytest.mark.parametrize("kind", ["dominated", "no_gain"])
def test_what_another_one_beat_is_never_the_best_though_its_loss_is_unknown(kind: VerdictKind) -> None:
    for name in AVAILABLE:
        asks = strategy(sampler=name)
        trial = told(kind, asks, images=0, ratio=0.3)
        assert trial.value == 0.3
        assert sum(trial.constraints.values()) > 0
        told("feasible", asks, ratio=0.3)
        assert asks.study.best_trial.number == 1


def test_the_unsupported_is_learned_from_and_failures_are_not() -> None:
    trial = told("unsupported", images=0)
    assert (trial.state, trial.value) == (TrialState.PRUNED, None)
    assert trial.constraints == {"unsupported": 1.0}
    for kind in ("failed", "unsettled", "noisy"):
        trial = told(kind, images=0)
        assert (trial.state, trial.constraints) == (TrialState.FAIL, {})


def test_all_complete_trials_have_the_same_constraints() -> None:
    for name in AVAILABLE:
        asks = strategy(sampler=name)
        search(asks).run()
        complete = [trial for trial in asks.study.trials if trial.state == TrialState.COMPLETE]
        assert len(complete) > 2
        assert {frozenset(trial.constraints) for trial in complete} == {frozenset({"budget"})}


def test_a_strategy_without_constraints_tells_latencies_and_nothing_else() -> None:
    asks = strategy(tells_constraints=False)
    search(asks).run()
    assert not any(trial.constraints for trial in asks.study.trials)
    assert states(asks)["FAIL"] == sum(truth.failure is not None for truth in TRUTHS.values())
    assert told("infeasible", strategy(tells_constraints=False), ratio=0.2).value == 0.2


def test_several_objectives_are_told_in_order_and_a_partial_loss_is_no_score() -> None:
    asks = strategy(objectives=("ap_loss", "latency"))
    assert told("feasible", asks, ratio=0.4, loss=0.01).values == [0.01, 0.4]
    assert told("infeasible", asks, ratio=0.3, loss=0.05).values == [0.05, 0.3]
    part = told("infeasible", asks, ratio=0.2, loss=0.05, images=32)
    assert (part.state, part.values) == (TrialState.PRUNED, None)
    assert part.constraints == pytest.approx({"budget": 0.03})
    assert told("dominated", asks, ratio=0.9, images=32).state == TrialState.PRUNED
    assert [trial.number for trial in asks.study.best_trials] == [0]


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_sampler_can_search_a_front(name: str) -> None:
    asks = strategy(sampler=name, objectives=("latency", "ap_loss", "size"))
    found = search(asks)
    found.run()
    assert len(found.candidates) == len(VARIANTS)
    front = {trial.user_attrs["variant"] for trial in asks.study.best_trials}
    assert front <= {each.variant.label for each in found.feasible}
    assert OPTIMUM.label in front


def test_without_a_budget_no_value_is_constrained() -> None:
    asks = strategy(objectives=("latency", "ap_loss"), limit=None)
    assert told("feasible", asks, ratio=0.4, loss=0.01).constraints == {}
    told("unsupported", asks, images=0)
    told("feasible", asks, ratio=0.5, loss=0.0)
    assert [trial.number for trial in asks.study.best_trials] == [0, 2]


def test_a_single_objective_other_than_latency_is_what_its_trials_are_worth() -> None:
    asks = strategy(objectives=("ap_loss",), limit=None)
    assert told("feasible", asks, ratio=0.4, loss=0.01).value == 0.01
    assert told("dominated", asks, loss=0.05, images=32).value is None


def test_what_is_known_comes_first_and_is_warm() -> None:
    known = [VARIANTS[4], VARIANTS[2], expand([{"scheme": "float32"}], [2])[0].variants[0]]
    asks = strategy(known=known)
    asked = [asks.ask() for _ in range(3)]
    assert [each and (each.variant in known, each.is_warm) for each in asked] == [(True, True)] * 2 + [(False, False)]
    assert [trial.user_attrs.get("warm") for trial in asks.study.trials] == [True, True, None]
    assert asks.axes.variant(asks.study.trials[0].params) == VARIANTS[4]


def test_artifact_and_latency_are_written_down_as_they_come() -> None:
    asks = strategy()
    found = search(asks, ScriptedLaboratory(TRUTHS, answers=12), in_flight=1)
    with pytest.raises(Died):
        found.run()
    trial = next(each for each in asks.study.trials if "artifact" in each.user_attrs)
    assert trial.user_attrs["artifact"] == "a" * 64
    assert trial.user_attrs["latency_ratio"] == TRUTHS[found.candidates[trial.number].variant].ratio


def test_nothing_is_told_twice_and_nothing_noted_of_what_is_finished() -> None:
    asks = strategy()
    ask = asks.ask()
    assert ask is not None
    first = candidate(ask, "dominated", images=0)
    asks.tell(first)
    asks.tell(candidate(ask, "feasible"))
    asks.note(first)
    assert asks.study.trials[0].state == TrialState.PRUNED


def assert_whole(asks: OptunaStrategy) -> None:
    """Every variant of the space has one trial that was learned from, and nothing else is left."""
    trials = asks.study.trials
    settled = [asks.axes.variant(trial.params) for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert Counter(settled) == Counter(VARIANTS)
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED", "FAIL"}


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_search_that_was_cut_off_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    url = str(tmp_path / "cut.db")
    first = search(strategy(url, name), ScriptedLaboratory(TRUTHS, random.Random(name).randrange(5, 40)))
    with pytest.raises(Died):
        first.run()
    asks = strategy(url, name)
    done = {each.variant for each in asks.settled()}
    assert done == {each.variant for each in first.candidates if each.verdict is not None}
    second = search(asks)
    best = second.run()
    assert best is not None
    assert best.variant == OPTIMUM
    in_flight = [(each.ask.number, each.variant) for each in first.candidates if each.verdict is None]
    asked = [(each.ask.number, each.variant) for each in second.candidates[len(done) :]]
    assert asked[: len(in_flight)] == in_flight
    assert_whole(asks)
    assert len(asks.study.trials) == len(VARIANTS)


WRITES = ("suggest_categorical", "set_user_attr", "set_constraint", "report")


def dying(original: Callable[..., Any], writes: Iterable[int]) -> Callable[..., Any]:
    left = iter(writes)

    def write(*arguments: Any) -> Any:
        result = original(*arguments)
        if next(left, None) == 0:
            raise Died
        return result

    return write


@pytest.mark.parametrize("write", WRITES)
def test_a_driver_that_dies_between_two_writes_leaves_nothing_running(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    url = str(tmp_path / "cut.db")
    original = getattr(optuna.Trial, write)
    deaths = 0
    for _ in range(4):
        last = random.Random(deaths).randrange(8 if write == "suggest_categorical" else 3)
        monkeypatch.setattr(optuna.Trial, write, dying(original, range(last, -1, -1)))
        asks = strategy(url)
        found = search(asks)
        try:
            found.run()
        except Died:
            deaths += 1
    monkeypatch.setattr(optuna.Trial, write, original)
    assert deaths > 0
    asks = strategy(url)
    found = search(asks)
    best = found.run()
    assert best is not None
    assert best.variant == OPTIMUM
    assert_whole(asks)
    assert not [each for each in recwarn if "optuna" in str(each.filename)]


def test_a_latency_that_was_noisy_in_all_attempts_is_settled(tmp_path: Path) -> None:
    url = str(tmp_path / "noisy.db")
    victim = VARIANTS[3]
    for run in range(2):
        asks = strategy(url)
        assert (victim in {each.variant for each in asks.settled()}) == (run == 1)
        search(asks, ScriptedLaboratory(TRUTHS | {victim: Truth(0.3, 0.0, noisy=("steal",))})).run()
    assert sum(asks.axes.variant(trial.params) == victim for trial in asks.study.trials) == 1


@pytest.mark.parametrize("kind", ["failed", "unsettled"])
def test_what_an_earlier_run_failed_to_measure_or_did_not_get_to_is_asked_for_again(tmp_path: Path, kind: str) -> None:
    url = str(tmp_path / "unsettled.db")
    for _ in range(3):
        asks = strategy(url)
        ask = asks.ask()
        while ask is not None:
            asks.tell(candidate(ask, kind, images=0))
            ask = asks.ask()
    assert len(asks.study.trials) == 3 * len(VARIANTS)
    assert strategy(url).settled() == []


def test_a_resumed_study_goes_on_with_another_seed(tmp_path: Path) -> None:
    url = str(tmp_path / "seeds.db")
    first = strategy(url, "random")
    search(first, trials=3).run()
    second = strategy(url, "random")
    assert first.study.run_seed == 0 != second.study.run_seed


def test_trials_put_into_the_queue_by_hand_are_taken_or_failed() -> None:
    asks = strategy()
    wanted = asks.axes.params(VARIANTS[5])
    for params in (wanted, wanted, {"scheme": "bfloat16", "toolchain": "litert_quantizer"}):
        asks.study.enqueue_trial(params)
    asked = list(iter(asks.ask, None))
    assert asked[0].variant == VARIANTS[5]
    assert Counter(ask.variant for ask in asked) == Counter(VARIANTS)
    assert states(asks) == {"RUNNING": len(VARIANTS), "FAIL": 2}


def test_another_space_or_other_objectives_under_the_same_name_are_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "spaces.db")
    strategy(url)
    with pytest.raises(DatabaseMistake, match="another space"):
        OptunaStrategy(open_study(url, "study"), VARIANTS[:5], limit=LIMIT)
    with pytest.raises(DatabaseMistake, match="makes latency small, and not latency, size"):
        open_study(url, "study", objectives=("latency", "size"))


def test_optuna_says_nothing_but_warnings() -> None:
    strategy()
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert set(VALUES) == {"latency", "ap_loss", "size"}


def test_a_failure_of_the_machine_is_not_held_against_the_variant() -> None:
    asks = strategy()
    ask = asks.ask()
    assert ask is not None
    lost = candidate(ask, "failed", images=0)
    lost.latency, lost.failure = None, Failure("detect", "worker_lost", "gone")
    asks.tell(lost)
    assert asks.study.trials[0].state == TrialState.FAIL


def test_a_space_of_one_variant_is_searched() -> None:
    only: tuple[Variant, ...] = VARIANTS[:1]
    asks = OptunaStrategy(open_study(None, "one"), only, limit=LIMIT)
    ask = asks.ask()
    assert ask is not None
    assert ask.variant == only[0]
    assert asks.ask() is None
