"""Strategies that can be replayed: who chooses the next variant, and what ends a variant early."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.search.candidate import Candidate
from orchestrator.search.objectives import LeastLatency, Objective
from orchestrator.search.strategy import Listed, Strategy
from results.reading import choices
from tasks.errors import UserMistake
from tasks.types import Variant


@dataclass(frozen=True)
class Unbeaten:
    """The objective of a search without dominance: every candidate is scored, however slow it is."""

    names: tuple[str, ...] = ("latency",)

    def beaten_by(self, candidate: Candidate, rivals: Iterable[Candidate]) -> Candidate | None:
        """Finds no rival; see `orchestrator.search.objectives.Objective`."""
        return None


@dataclass(frozen=True)
class ReplayStrategy:
    """One way to search a table."""

    name: str
    """Its name in reports."""

    sampler: str | None = None
    """Optuna's sampler as a spec names it; None to take variants in the order of the sweep."""

    has_dominance: bool = True
    """Whether a variant that is not faster than a feasible one is given up without being scored."""

    has_interval: bool = True
    """Whether scoring ends as soon as it is sure that a variant is over the budget."""

    tells_constraints: bool = True
    """Whether the sampler hears which variants are feasible."""

    at_once: int | None = None
    """Variants in flight; None as a study has it, 0 for all."""

    is_complete: bool = False
    """Whether it asks for every variant, whatever the stop rules say."""

    @property
    def objective(self) -> Objective:
        """What ends a candidate for the sake of another."""
        return LeastLatency() if self.has_dominance else Unbeaten()

    def open(self, variants: tuple[Variant, ...], limit: float, seed: int) -> Strategy:
        """Begins a search.

        Args:
            variants: The space.
            limit: The budget's largest loss.
            seed: Seed of the sampler.

        Returns:
            A strategy that has asked for nothing yet.
        """
        if self.sampler is None:
            return Listed(variants)
        from orchestrator.search.optuna_strategy import OptunaStrategy, open_study

        study = open_study(None, self.name, self.sampler, seed, ("latency",))
        return OptunaStrategy(study, variants, limit=limit, tells_constraints=self.tells_constraints)


_LISTED = (
    ReplayStrategy("exhaustive", has_dominance=False, has_interval=False, at_once=1, is_complete=True),
    ReplayStrategy("find_best", has_interval=False, at_once=0, is_complete=True),
)

_SAMPLERS = (
    *(ReplayStrategy(sampler, sampler) for sampler in ("random", "tpe", "gp", "nsga2", "qmc", "brute_force")),
    ReplayStrategy("tpe_unconstrained", "tpe", tells_constraints=False),
)

_ENDINGS: dict[str, dict[str, Any]] = {
    "": {},
    "-no-stops": {"has_dominance": False, "has_interval": False},
    "-no-interval": {"has_interval": False},
    "-no-dominance": {"has_dominance": False},
}

STRATEGIES = {
    each.name: each
    for each in (
        *_LISTED,
        *(replace(base, name=base.name + end, **off) for base in _SAMPLERS for end, off in _ENDINGS.items()),
    )
}
"""All of them by name. `exhaustive` scores every variant on every image, `find_best` goes by rising latency until one
is feasible; those of a sampler may have endings that switch off what ends a variant early."""

DEFAULT_STRATEGIES = ("exhaustive", "find_best", "random", "tpe")
"""What a replay compares unless it is told otherwise."""


def strategies_of(names: Iterable[str]) -> tuple[ReplayStrategy, ...]:
    """Finds strategies by name.

    Args:
        names: Keys of `STRATEGIES`.

    Returns:
        The strategies, each once, in that order.

    Raises:
        UserMistake: If a name is unknown; the message says which there are.
    """
    found = []
    for name in dict.fromkeys(names):
        if name not in STRATEGIES:
            raise UserMistake(f"there is no strategy {name!r}; {choices(name, list(STRATEGIES))}")
        found.append(STRATEGIES[name])
    return tuple(found)
