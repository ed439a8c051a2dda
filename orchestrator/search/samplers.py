"""Samplers: which of Optuna's stands behind each name, and how it is set up for a small finite space."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.block import is_installed
from tasks.errors import SpecMistake

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Sampler:
    """A way of proposing variants."""

    make: Callable[[int, int], "BaseSampler"]
    """(seed of the study, seed of this run of it) -> the sampler."""

    is_flat: bool = False
    """Whether it models only parameters that all trials have, so that absent axes had better be None."""

    avoids_unsupported: bool = False
    """Whether it is kept from combinations that turned out to be unsupported."""

    learns_from_pruned: bool = True
    """Whether it may be left without trials that were ended early; one that models only complete trials, and needs some
    of them to begin with, may not."""

    package: str | None = None
    """A distribution that it takes and that may be missing."""

    install: str = ""
    """What installs it."""


def _tpe(_: int, seed: int) -> "BaseSampler":
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=10)


def _gp(_: int, seed: int) -> "BaseSampler":
    import torch
    from optuna.samplers import GPSampler

    # On problems as small as these, more threads only wait for each other: minutes instead of seconds.
    torch.set_num_threads(1)
    return GPSampler(seed=seed, n_startup_trials=10, warn_independent_sampling=False)


def _nsga2(_: int, seed: int) -> "BaseSampler":
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=10)


def _random(_: int, seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _qmc(seed: int, run_seed: int) -> "BaseSampler":
    from optuna.samplers import QMCSampler, RandomSampler

    # The study remembers how far its sequence got, so a later run must continue the same one.
    return QMCSampler(
        seed=seed, scramble=True, independent_sampler=RandomSampler(seed=run_seed), warn_independent_sampling=False
    )


def _brute_force(_: int, seed: int) -> "BaseSampler":
    from optuna.samplers import BruteForceSampler

    return BruteForceSampler(seed=seed)


SAMPLERS: dict[str, Sampler] = {
    "tpe": Sampler(_tpe, avoids_unsupported=True),
    "gp": Sampler(
        _gp,
        is_flat=True,
        avoids_unsupported=True,
        learns_from_pruned=False,
        package="torch",
        install="pip install 'quantsweep[torch]'",
    ),
    "nsga2": Sampler(_nsga2, is_flat=True, avoids_unsupported=True),
    "random": Sampler(_random),
    "qmc": Sampler(_qmc, is_flat=True),
    "brute_force": Sampler(_brute_force),
}
"""Every sampler by its identifier."""


def sampler_of(name: str) -> Sampler:
    """Finds a sampler.

    Args:
        name: Its identifier.

    Returns:
        The sampler.

    Raises:
        SpecMistake: If there is none of that name, or something that it takes is not installed.
    """
    if name not in SAMPLERS:
        raise SpecMistake(f"there is no sampler {name!r}; choices: {', '.join(SAMPLERS)}")
    found = SAMPLERS[name]
    if found.package is not None and not is_installed(found.package):
        raise SpecMistake(f"the sampler {name} needs {found.package}, not installed here: {found.install}")
    return found


def make_sampler(name: str, seed: int, trials: int) -> "BaseSampler":
    """Makes a sampler of Optuna's.

    Args:
        name: Its identifier.
        seed: Seed of the study.
        trials: How many trials the study has already; a sampler that went on with the same seed would propose again
            what it proposed at first.

    Returns:
        The sampler.

    Raises:
        SpecMistake: As `sampler_of`.
    """
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return sampler_of(name).make(seed, run_seed(seed, trials))


def run_seed(seed: int, trials: int) -> int:
    """Returns the seed of a run of a study.

    Args:
        seed: Seed of the study.
        trials: How many trials it has already.

    Returns:
        The seed itself for a fresh study, another one in [0, 2^32) for each number of trials.
    """
    if trials == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {trials}".encode()).digest()[:4], "big")
