"""One replayed search: a strategy against a table, and how well it did, which the table knows."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.replay.drawn_images import DrawnImages, ratio_of
from orchestrator.replay.strategies import ReplayStrategy
from orchestrator.replay.table import Entry
from orchestrator.replay.table_laboratory import TableLaboratory
from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.observer import Unobserved
from orchestrator.search.rungs import rungs
from orchestrator.search.search import Rules, Search
from orchestrator.search.stops import StopRules
from orchestrator.search.strategy import Strategy
from results.store import KEPT_FAILURES

_REFERENCE_RATIO = 1.0
"""Latency ratio of what one is left with as long as nothing feasible was found: the reference."""


@dataclass(frozen=True)
class ReplayOptions:
    """How the searches of a replay are run; what `StudySettings` says of a study."""

    images: int | None = None
    """Images of each drawn evaluation set; None for the table's own."""

    in_flight: int = 8
    """Most candidates without a verdict."""

    error_rate: float = 0.05
    """How often a feasible candidate may be ended wrongly."""

    stops: StopRules = field(default_factory=lambda: StopRules(trials=200, patience=50))
    """When a search ends."""

    resamples: int = 200
    """Bootstrap resamples of an interval."""

    width: int = 1
    """Candidates looked at at a time; see `Laboratory`."""

    times_elsewhere: bool = False
    """Whether looks do not wait for latencies; see `Laboratory`."""

    until_found: bool = False
    """Whether a search asks for nothing more once it has found the optimum, which no real search knows: for comparing
    how soon it is found."""


@dataclass(frozen=True)
class Decision:
    """What became of a build that was looked at until it was called feasible or infeasible."""

    excess: float
    """Its loss on all images less the budget's limit: it is infeasible in truth if this is above 0."""

    images: int
    """Images that it was looked at on, when its verdict came."""

    is_early: bool
    """Whether it was called infeasible before it was looked at on all images."""

    @property
    def is_wrong(self) -> bool:
        """Whether it was ended as over the budget and is within it."""
        return self.is_early and self.excess <= 0


@dataclass(frozen=True)
class Run:
    """One search and how well it did."""

    strategy: str
    """Name of the strategy."""

    seed: int
    """Seed of sampler and images."""

    optimum: str | None
    """The fastest feasible variant of the table, by label; None if none is feasible."""

    found: str | None
    """What the search found; None if nothing."""

    is_optimum: bool
    """Whether nothing feasible is faster than what it found; or it found nothing, and there is nothing."""

    is_as_fast: bool
    """Whether the latency interval of what it found overlaps the optimum's."""

    regret: float
    """Ratio of what it found / ratio of the optimum - 1; of the reference as long as nothing is found. 0 if nothing is
    feasible."""

    curve: tuple[tuple[int, float], ...]
    """(images inferred, regret) after each verdict that changed it, from (0, regret of the reference) on."""

    images: int
    """Images inferred."""

    images_exhaustive: int
    """Images that scoring every build of the table takes, the reference's included."""

    images_to_optimum: int | None
    """Images inferred when it was known to be feasible; None if it was never found."""

    images_to_as_fast: int | None
    """Images inferred when something with an overlapping latency interval was known to be feasible, or None."""

    timed: int
    """Latencies measured; variants of one structure share one."""

    timed_to_optimum: int | None
    """Latencies measured when the optimum was known to be feasible, or None."""

    trials: int
    """Variants asked for."""

    verdicts: dict[str, int]
    """Number of verdicts by kind."""

    decisions: tuple[Decision, ...]
    """What was decided on each build that was looked at."""

    unsupported: tuple[int, int]
    """Variants asked for in the first and in the second half of the trials that cannot be made."""

    stopped_by: str
    """Why it ended."""


@dataclass(frozen=True)
class _Best:
    """The best feasible variant after some verdict, and what was spent by then."""

    entry: Entry
    images: int
    timed: int


class _Recorder(Unobserved):
    """Notes each candidate that was the best when its verdict came."""

    def __init__(self, drawn: DrawnImages, laboratory: TableLaboratory) -> None:
        self._table, self._laboratory = drawn.table, laboratory
        self.bests: list[_Best] = []

    def settled(self, candidate: Candidate) -> None:
        """Notes a candidate that is the best so far."""
        if candidate.is_feasible:
            entry = self._table.entry_of(candidate.variant)
            if not self.bests or ratio_of(entry) < ratio_of(self.bests[-1].entry):
                self.bests.append(_Best(entry, self._laboratory.images_inferred, self._laboratory.structures_timed))


class _UntilFound:
    """A strategy that asks for nothing more once the optimum is found."""

    def __init__(self, strategy: Strategy, is_found: Callable[[], bool]) -> None:
        self._strategy, self._is_found = strategy, is_found
        self.note, self.tell = strategy.note, strategy.tell

    def ask(self) -> Ask | None:
        """Asks the strategy, or nothing."""
        return None if self._is_found() else self._strategy.ask()


def replay(drawn: DrawnImages, strategy: ReplayStrategy, options: ReplayOptions) -> Run:
    """Runs one search against a table.

    Args:
        drawn: Images of the table; their seed is the sampler's, too.
        strategy: Who searches.
        options: How.

    Returns:
        How well it did.
    """
    table = drawn.table
    variants = tuple(entry.variant for entry in table.entries)
    laboratory = TableLaboratory(drawn, options.width, options.times_elsewhere)
    recorder = _Recorder(drawn, laboratory)
    rules = Rules(
        rungs=rungs(len(drawn), options.error_rate, strategy.has_interval),
        budget=table.budget,
        objective=strategy.objective,
        in_flight=options.in_flight if strategy.at_once is None else strategy.at_once or max(1, len(variants)),
        stops=StopRules() if strategy.is_complete else options.stops,
        is_own_fault=lambda failure: failure.reason in KEPT_FAILURES,
    )
    optimum = drawn.optimum()

    def reached() -> _Best | None:
        return next((best for best in recorder.bests if _is_optimum(best.entry, optimum)), None)

    asking = strategy.open(variants, table.budget.limit, drawn.seed)
    if options.until_found:
        asking = _UntilFound(asking, lambda: reached() is not None)
    search = Search(asking, laboratory, rules, recorder)
    winner = search.run()
    found, first = table.entry_of(winner.variant) if winner else None, reached()
    builds = {table.reference_build, *(entry.build for entry in table.entries if entry.build)}
    halves = search.candidates[: len(search.candidates) // 2], search.candidates[len(search.candidates) // 2 :]
    unsupported = [sum(each.verdict is not None and each.verdict.kind == "unsupported" for each in h) for h in halves]
    return Run(
        strategy=strategy.name,
        seed=drawn.seed,
        optimum=optimum.variant.label if optimum else None,
        found=found.variant.label if found else None,
        is_optimum=_is_optimum(found, optimum),
        is_as_fast=_is_as_fast(found, optimum),
        regret=_regret(found, optimum),
        curve=((0, _regret(None, optimum)), *((best.images, _regret(best.entry, optimum)) for best in recorder.bests)),
        images=laboratory.images_inferred,
        images_exhaustive=len(builds) * len(drawn),
        images_to_optimum=first.images if first else None,
        images_to_as_fast=next((best.images for best in recorder.bests if _is_as_fast(best.entry, optimum)), None),
        timed=laboratory.structures_timed,
        timed_to_optimum=first.timed if first else None,
        trials=len(search.candidates),
        verdicts=dict(Counter(each.verdict.kind for each in search.candidates if each.verdict)),
        decisions=_decisions(search, drawn),
        unsupported=(unsupported[0], unsupported[1]),
        stopped_by=search.stopped_by or "",
    )


def _is_optimum(found: Entry | None, optimum: Entry | None) -> bool:
    if found is None or optimum is None:
        return found is optimum
    return ratio_of(found) == ratio_of(optimum)


def _is_as_fast(found: Entry | None, optimum: Entry | None) -> bool:
    if found is None or optimum is None:
        return found is optimum
    assert found.latency and optimum.latency
    return not found.latency.is_apart_from(optimum.latency)


def _regret(found: Entry | None, optimum: Entry | None) -> float:
    if optimum is None:
        return 0.0
    ratio = ratio_of(found) if found else max(_REFERENCE_RATIO, ratio_of(optimum))
    return ratio / ratio_of(optimum) - 1


def _decisions(search: Search, drawn: DrawnImages) -> tuple[Decision, ...]:
    """What was decided on each build, once: variants of one build are decided alike."""
    found: dict[str, Decision] = {}
    for candidate in search.candidates:
        build = drawn.table.entry_of(candidate.variant).build
        if candidate.verdict is None or candidate.verdict.kind not in ("feasible", "infeasible") or build is None:
            continue
        excess, images = drawn.excess(build), candidate.verdict.images
        is_early = images < len(drawn)
        # On all images the search decides by the very loss that the table has.
        assert is_early or candidate.is_feasible == (excess <= 0), candidate.verdict
        found[build] = Decision(excess, images, is_early)
    return tuple(found.values())
