"""A study of Optuna's that knows how it is searched and hands out again what a dead driver left running.

This module subclasses a class of Optuna and so imports it; who needs it imports it inside a function.
"""

import optuna
from optuna.storages import BaseStorage
from optuna.trial import Trial

from orchestrator.search.samplers import make_sampler, run_seed, sampler_of


class OptunaStudy(optuna.Study):
    """A study with the choices that it was opened with."""

    def __init__(self, name: str, storage: BaseStorage, sampler: str, seed: int, objectives: tuple[str, ...]) -> None:
        """Opens a study that exists in the storage.

        Args:
            name: Its name.
            storage: Where it is kept.
            sampler: Identifier of the sampler.
            seed: Seed of the sampler.
            objectives: What is made small, keys of `orchestrator.search.objectives.VALUES`.

        Raises:
            SpecMistake: If the sampler cannot be had.
        """
        super().__init__(name, storage)
        self._kept = storage
        trials = len(self.get_trials(deepcopy=False))
        self.sampler = make_sampler(sampler, seed, trials)
        self.kind = sampler_of(sampler)
        """The kind of sampler."""
        self.objectives = objectives
        """What is made small."""
        self.run_seed = run_seed(seed, trials)
        """Seed of this run of the study."""

    def running(self, number: int) -> Trial:
        """Returns a trial that was asked for in an earlier run and is not finished, so that it can be gone on with.

        Args:
            number: Its number.

        Returns:
            The trial, as `ask` returned it then.

        Raises:
            KeyError: If there is no trial of that number.
        """
        study_id = self._kept.get_study_id_from_name(self.study_name)
        return Trial(self, self._kept.get_trial_id_from_study_id_trial_number(study_id, number))
