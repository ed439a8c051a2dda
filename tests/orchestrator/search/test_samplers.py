"""Samplers: each stays within the space, asks for nothing twice, and is repeatable."""

import statistics
import warnings
from typing import Any

import optuna
import pytest

from orchestrator.search import samplers
from orchestrator.search.axes import Axes, Choice
from orchestrator.search.optuna_storage import open_study
from orchestrator.search.samplers import SAMPLERS, run_seed, sampler_of
from orchestrator.search.support import Support
from orchestrator.search.unseen import Unseen
from orchestrator.space import expand
from tasks.errors import SpecMistake
from tasks.types import Variant
from tests.benchmarks.unsupported_combinations import asked_for_unsupported

VARIANTS = expand(
    [
        {"scheme": ["float16", "dynamic_int8"]},
        {"scheme": "static_int8", "toolchain": "litert_quantizer", "granularity": ["per_channel", "per_tensor"],
         "range_estimator": ["min_max", "fixed"], "calibration_images": [8, 32]},
        {"scheme": "bfloat16"},
    ],
    [1, 2],
)[0].variants  # fmt: skip
AVAILABLE = [name for name, each in SAMPLERS.items() if each.package is None or samplers.is_installed(each.package)]


class Proposer(optuna.samplers.BaseSampler):
    """Always proposes the same values together, and the last choice of an axis alone."""

    def __init__(self, proposal: dict[str, Any]) -> None:
        self._proposal = proposal

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return self._proposal

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        return param_distribution.choices[-1]


def walk(name: str, seed: int, number: int = len(VARIANTS)) -> list[Variant]:
    """What a sampler asks for if the number of the trial is what counts."""
    study = open_study(None, "walk", name, seed)
    axes = Axes(VARIANTS, study.kind.is_flat)
    left = {variant: axes.params(variant) for variant in VARIANTS}
    study.sampler = Unseen(study.sampler, axes, left.values(), seed, Support())
    found = []
    for _ in range(number):
        trial = study.ask()
        found.append(suggested(axes, trial))
        del left[found[-1]]
        study.tell(trial, float(VARIANTS.index(found[-1])))
    return found


def suggested(axes: Axes, trial: optuna.Trial) -> Variant:
    params: dict[str, Choice] = {}
    while (axis := axes.next(params)) is not None:
        params[axis] = trial.suggest_categorical(axis, axes.choices[axis])
    found = axes.variant(params)
    assert found is not None
    assert trial.params == params
    return found


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_sampler_asks_for_each_variant_once(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        found = walk(name, seed=0)
    assert len(found) == len(VARIANTS)
    assert set(found) == set(VARIANTS)


@pytest.mark.parametrize("name", AVAILABLE)
def test_equal_seeds_ask_for_the_same_and_others_for_something_else(name: str) -> None:
    assert walk(name, seed=1, number=12) == walk(name, seed=1, number=12)
    assert walk(name, seed=1, number=12) != walk(name, seed=2, number=12)


def test_a_fresh_study_has_its_own_seed_and_each_later_run_another() -> None:
    assert run_seed(7, 0) == 7
    assert len({run_seed(7, trials) for trials in range(50)} | {run_seed(8, trials) for trials in range(50)}) == 100


def test_a_proposal_is_taken_whole_and_then_as_far_as_something_new_has_it() -> None:
    study = open_study(None, "proposals", "random", 0)
    axes = Axes(VARIANTS)
    left = {variant: axes.params(variant) for variant in VARIANTS}
    wanted = VARIANTS[-3]
    study.sampler = Unseen(Proposer(axes.params(wanted)), axes, left.values(), 0, Support())
    assert suggested(axes, study.ask()) == wanted
    del left[wanted]
    nearest = suggested(axes, study.ask())
    first = list(axes.choices).index("granularity")
    assert [axes.params(nearest)[axis] for axis in list(axes.choices)[:first]] == [
        axes.params(wanted)[axis] for axis in list(axes.choices)[:first]
    ]
    assert nearest != wanted


def test_what_is_proposed_of_one_axis_is_taken_if_something_new_has_it() -> None:
    study = open_study(None, "proposals", "random", 0)
    axes = Axes(VARIANTS)
    left = {variant: axes.params(variant) for variant in VARIANTS if variant.settings.threads == 2}
    study.sampler = Unseen(Proposer({}), axes, left.values(), 0, Support())
    found = suggested(axes, study.ask())
    assert found in left
    assert found.scheme.name == axes.choices["scheme"][-1]


def test_an_unknown_sampler_is_refused_with_the_choices() -> None:
    with pytest.raises(SpecMistake, match=r"no sampler 'cmaes'; choices: tpe, gp, nsga2, random, qmc, brute_force"):
        sampler_of("cmaes")


def test_a_sampler_whose_library_is_missing_is_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "is_installed", lambda package: False)
    with pytest.raises(SpecMistake, match=r"the sampler gp needs torch, .* pip install 'quantsweep\[torch\]'"):
        open_study(None, "s", "gp")
    assert open_study(None, "s", "tpe").trials == []


def test_the_pair_of_values_that_failed_most_often_and_never_worked_is_to_blame() -> None:
    support = Support()
    failed: dict[str, Choice] = {"scheme": "a", "granularity": "b", "threads": 1}
    assert support.chance(failed) == 1
    support.learn(failed, is_supported=False)
    assert support.chance(failed) == pytest.approx(0.5 ** (1 / 3))
    support.learn(failed | {"threads": 2}, is_supported=False)
    assert support.chance(failed) == 0.25
    assert support.chance(failed | {"threads": 3}) == 0.25
    assert support.chance(failed | {"granularity": "c"}) == 1


def test_a_pair_of_values_that_works_is_not_to_blame() -> None:
    support = Support()
    failed: dict[str, Choice] = {"scheme": "a", "granularity": "b", "threads": 1}
    support.learn(failed, is_supported=False)
    support.learn(failed | {"threads": 2}, is_supported=True)
    assert support.chance(failed | {"threads": 2}) == 1
    assert support.chance(failed) == pytest.approx(0.5 ** (1 / 2))
    support.learn(failed, is_supported=True)
    assert support.chance(failed) == 1


def test_the_unsupported_is_asked_for_ever_less_if_it_is_told_and_not_otherwise() -> None:
    told, failed = (
        [share for seed in range(5) for share in asked_for_unsupported("tpe", seed, is_told)[30:]]
        for is_told in (True, False)
    )
    assert statistics.mean(told) < 0.12
    assert statistics.mean(failed) > 0.2
