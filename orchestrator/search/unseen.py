"""Unseen: any sampler of Optuna, held to a finite space of which nothing is asked for twice.

This module subclasses a class of Optuna and so imports it; who needs it imports it inside a function.
"""

import copy
import random
from collections.abc import Collection, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, BruteForceSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.axes import Axes, Choice, Params
from orchestrator.search.support import Support


class Unseen(BaseSampler):
    """Takes what another sampler proposes where something unseen has it, and the nearest thing to it elsewhere.

    Each axis is decided in turn, the most important first, among the values that lead to something unseen. So the
    parameters of a trial always are those of a variant, and of a new one.
    """

    def __init__(
        self, base: BaseSampler, axes: Axes, left: Collection[Params], seed: int, support: Support | None
    ) -> None:
        """Wraps a sampler.

        Args:
            base: Who proposes.
            axes: The space.
            left: A live view of the parameters of everything unseen.
            seed: Seed of what is drawn in place of a proposal that leads nowhere.
            support: What is known about unsupported combinations, which are avoided; None to ask for them like any.
        """
        self._base, self._axes, self._left, self._support = base, axes, left, support
        self._random = random.Random(seed)
        self.wanted: Params | None = None
        """What the trials to come shall ask for, whatever is proposed; None to go by the proposals."""
        self._plan: tuple[int, Params] = (-1, {})

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns nothing: a trial is planned when its first parameter is asked for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns nothing; see `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Choice:
        """Decides one axis.

        Args:
            study: The study.
            trial: A trial whose parameters so far were decided in the order of the axes.
            param_name: The axis.
            param_distribution: Its values.

        Returns:
            A value that something unseen has under what was decided before. If there is none (the trial was begun by
            somebody else), what the base sampler proposes.
        """
        if self.wanted is not None and param_name in self.wanted:
            return self.wanted[param_name]
        number, plan = self._plan
        if number != trial.number or not trial.params.items() <= plan.items():
            plan = self._planned(study, trial)
            self._plan = trial.number, plan
        if param_name in plan:
            return plan[param_name]
        found: Choice = self._base.sample_independent(study, trial, param_name, param_distribution)
        return found

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passes it on."""
        self._base.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Passes it on."""
        # Brute force would stop a loop of Optuna's at the end of its tree, and raises where there is no such loop.
        if not isinstance(self._base, BruteForceSampler):
            self._base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Passes it on."""
        self._base.reseed_rng()
        self._random.seed()

    def _planned(self, study: Study, trial: FrozenTrial) -> Params:
        under = [params for params in self._left if _agree(params, trial.params)]
        if not under:
            return {}
        proposed = self._base.sample_relative(study, trial, self._base.infer_relative_search_space(study, trial))
        plan = self._walked(study, trial, under, proposed)
        wanted = self._random.random()
        if self._support is None or self._support.chance(plan) >= wanted:
            return plan
        # What has most in common with the plan, of what is likely to be supported.
        likely = [params for params in under if self._support.chance(params) >= wanted] or under
        return max(likely, key=lambda params: (len(params.items() & plan.items()), self._random.random()))

    def _walked(
        self, study: Study, trial: FrozenTrial, under: list[Params], proposed: dict[str, Any]
    ) -> dict[str, Choice]:
        """Decides one axis after the other."""
        plan: dict[str, Choice] = dict(trial.params)
        begun = copy.copy(trial)
        while (axis := self._axes.next(plan)) is not None:
            begun.params = dict(plan)
            plan[axis] = self._decided(study, begun, axis, {params[axis] for params in under}, proposed)
            under = [params for params in under if params[axis] == plan[axis]]
        return plan

    def _decided(
        self, study: Study, trial: FrozenTrial, axis: str, found: set[Choice], proposed: dict[str, Any]
    ) -> Choice:
        choices = self._axes.choices[axis]
        values = [value for value in choices if value in found]
        if len(values) == 1:
            return values[0]
        if axis in proposed and proposed[axis] in found:
            value: Choice = proposed[axis]
            return value
        value = self._base.sample_independent(study, trial, axis, CategoricalDistribution(choices))
        return value if value in found else self._random.choice(values)


def _agree(params: Params, values: Params) -> bool:
    return values.items() <= params.items()
