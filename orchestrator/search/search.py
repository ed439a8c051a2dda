"""The search: latency first, then accuracy in rungs, of the candidates that could still win; the fastest first.

Trainings cost more than everything else. They begin when nothing is left to look at without one, so that what could
not win is not trained. Candidates that wait for a training do not keep others from being asked for, until there are as
many of them as may be in flight: what is asked for later may be faster, and a strategy must learn from results.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from orchestrator.budget import Budget
from orchestrator.search.candidate import Candidate
from orchestrator.search.laboratory import Laboratory
from orchestrator.search.objectives import LeastLatency, Objective
from orchestrator.search.observer import SearchObserver, Unobserved
from orchestrator.search.promise import why_unpromising
from orchestrator.search.rungs import Rung
from orchestrator.search.stops import Spent, StopRules
from orchestrator.search.strategy import Strategy
from tasks.types import Artifact, Failure, Latency, LossInterval, TrainingProgress, Verdict, VerdictKind

EXHAUSTED = "every variant of the space was asked for"
"""Why a search ends that no stop rule ended."""


@dataclass(frozen=True)
class Rules:
    """How candidates are judged."""

    rungs: tuple[Rung, ...]
    """The looks at a candidate; a single one of all images for a search that never ends a candidate early."""

    budget: Budget | None = None
    """The largest loss of a feasible candidate; None if any loss is."""

    objective: Objective = field(default_factory=LeastLatency)
    """What is made small."""

    in_flight: int = 8
    """Most candidates without a verdict; as many again may wait for a training. When half of them have one, as many are
    asked for at once."""

    stops: StopRules = field(default_factory=StopRules)
    """When it ends."""

    ends_trainings: bool = True
    """Whether a training that goes badly is ended; see `orchestrator.search.promise`."""

    is_own_fault: Callable[[Failure], bool] = lambda failure: True
    """Whether a failure follows from what was asked for, so that asking again would be of no use."""


class Search:
    """One search. Knows nothing of Optuna, Ray or a database."""

    def __init__(
        self,
        strategy: Strategy,
        laboratory: Laboratory,
        rules: Rules,
        observer: SearchObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        earlier: Iterable[Candidate] = (),
        seconds: float = 0.0,
    ) -> None:
        """Begins a search; `run` does the rest.

        Args:
            strategy: Who says what to try.
            laboratory: Who measures.
            rules: How candidates are judged.
            observer: Who wants to know.
            clock: Seconds since whenever.
            earlier: What earlier runs of this search settled, in order. Those that the strategy was not told are taken
                up when it asks for them under the same number.
            seconds: Wall time of the earlier runs.
        """
        self._strategy, self._laboratory, self._rules = strategy, laboratory, rules
        self._observer = observer or Unobserved()
        self._clock, self._began = clock, clock() - seconds
        self.candidates: list[Candidate] = []
        """Everything asked for, in order; what earlier runs settled first."""
        self.stopped_by: str | None = None
        """Why nothing more is asked for."""
        self._untimed: set[Candidate] = set()
        self._waiting: list[Candidate] = []
        self._looked_at: set[Candidate] = set()
        self._trained: set[Candidate] = set()
        self._given_up: dict[Candidate, tuple[VerdictKind, str]] = {}
        self._since_best = 0
        self._is_advancing = self._is_due = False
        self._untold: dict[int, Candidate] = {}
        for candidate in earlier:
            if candidate.is_told:
                self._count(candidate)
                self.candidates.append(candidate)
            else:
                self._untold[candidate.ask.number] = candidate

    @property
    def feasible(self) -> list[Candidate]:
        """Candidates known to be within the budget on every image."""
        return [candidate for candidate in self.candidates if candidate.is_feasible]

    @property
    def best(self) -> Candidate | None:
        """The fastest of them; of equally fast ones, the one that loses least."""
        return min(self.feasible, key=_merit, default=None)

    @property
    def spent(self) -> Spent:
        """What was spent so far."""
        trials = sum(not candidate.ask.is_warm for candidate in self.candidates)
        since_best = self._since_best if self.best else 0
        return Spent(trials, self._clock() - self._began, self._laboratory.images_inferred, since_best)

    def run(self) -> Candidate | None:
        """Searches until a stop rule holds or nothing is left to ask for, and confirms the winner.

        Returns:
            The fastest feasible candidate, or None.
        """
        self._advance()
        self._laboratory.run()
        while (best := self.best) is not None and not best.is_confirmed:
            self._laboratory.confirm(best, partial(self._take_confirmation, best))
            self._laboratory.run()
        return self.best

    def _advance(self) -> None:
        # Laboratories answer at once what they know, in the middle of a round: another round follows then.
        self._is_due = True
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while self._is_due:
                self._is_due = False
                self._drop()
                self._ask()
                self._look()
                self._train()
        finally:
            self._is_advancing = False

    def _drop(self) -> None:
        """Ends waiting candidates that cannot win any more, or all of them if the search is over."""
        over = self._rules.stops.why_at_once(self.spent)
        rivals = self.feasible
        for candidate in list(self._waiting):
            if candidate.ask.is_warm:
                # A look at what is known costs nothing, and the strategy learns more from it.
                continue
            rival = self._rules.objective.beaten_by(candidate, rivals)
            if rival is not None:
                self._waiting.remove(candidate)
                self._settle(candidate, *_beaten(candidate, rival))
            elif over:
                self._waiting.remove(candidate)
                self._settle(candidate, "unsettled", f"the search ended first: {over}")

    @property
    def _in_flight(self) -> int:
        """Candidates that something is found out about; those that wait for a training are counted apart."""
        return len(self._untimed) + len(self._ready) + len(self._looked_at) + len(self._trained)

    @property
    def _unbegun(self) -> list[Candidate]:
        """Candidates that wait for a training."""
        return [candidate for candidate in self._waiting if candidate.is_untrained]

    def _ask(self) -> None:
        # Several at a time: they are built side by side, and a node that times is emptied less often.
        most = self._rules.in_flight
        if self._in_flight > most // 2 or len(self._unbegun) >= most:
            return
        while self.stopped_by is None:
            why = self._rules.stops.why_no_more(self.spent)
            if why is None and max(self._in_flight, len(self._unbegun)) >= most:
                return
            ask = self._strategy.ask() if why is None else None
            if ask is None:
                self.stopped_by = why or EXHAUSTED
                self._observer.stopped(self.stopped_by)
                return
            settled = self._untold.pop(ask.number, None)
            if settled is not None and settled.variant == ask.variant:
                self._take_up(settled)
                continue
            candidate = Candidate(ask)
            self.candidates.append(candidate)
            self._observer.asked(candidate)
            self._make(candidate)

    def _make(self, candidate: Candidate) -> None:
        candidate.is_untrained = self._laboratory.needs_training(candidate)
        self._untimed.add(candidate)
        self._laboratory.make(candidate, partial(self._take_artifact, candidate))

    def _take_up(self, candidate: Candidate) -> None:
        """Tells the strategy what an earlier run settled, and could not tell any more."""
        self._count(candidate)
        self.candidates.append(candidate)
        self._tell(candidate)
        self._is_due = True

    def _look(self) -> None:
        """Looks at the fastest ones that wait, once it is known which those are."""
        if self._untimed and not self._laboratory.times_elsewhere:
            return
        # An answer that came at once may have beaten those that wait: they are dropped first.
        while not self._is_due and self._ready and len(self._looked_at) < self._laboratory.width:
            # Of equally fast ones, the one that was looked at before goes on.
            candidate = min(self._ready, key=lambda each: (each.ratio, -each.rungs))
            self._waiting.remove(candidate)
            self._looked_at.add(candidate)
            rung = self._rules.rungs[candidate.rungs]
            self._laboratory.look(candidate, rung, partial(self._take_look, candidate, rung))

    @property
    def _ready(self) -> list[Candidate]:
        """Candidates that can be looked at."""
        return [candidate for candidate in self._waiting if not candidate.is_untrained]

    def _train(self) -> None:
        """Begins the trainings of the fastest, once there is nothing else to decide."""
        if self._untimed or self._ready or self._looked_at:
            return
        while not self._is_due and self._unbegun and len(self._trained) < self._laboratory.training_width:
            candidate = min(self._unbegun, key=lambda each: each.ratio)
            self._waiting.remove(candidate)
            self._trained.add(candidate)
            self._laboratory.train(candidate, partial(self._watch, candidate), partial(self._take_trained, candidate))

    def _watch(self, candidate: Candidate, progress: TrainingProgress) -> str | None:
        """Says why a training should end, if there is a reason."""
        candidate.training = progress
        self._observer.noted(candidate)
        over = self._rules.stops.why_at_once(self.spent)
        rival = self._rules.objective.beaten_by(candidate, self.feasible)
        verdict: tuple[VerdictKind, str] | None = None
        if rival is not None:
            verdict = _beaten(candidate, rival)
        elif over:
            verdict = "unsettled", f"the search ended first: {over}"
        elif self._rules.ends_trainings and (why := why_unpromising(progress, self._curves(candidate))):
            verdict = "unpromising", why
        if verdict is None:
            self._given_up.pop(candidate, None)
            return None
        self._given_up[candidate] = verdict
        return verdict[1]

    def _curves(self, candidate: Candidate) -> list[TrainingProgress]:
        """Learning curves of the other trainings for a candidate's structure, with the same loss; each once."""
        assert candidate.artifact is not None
        structure, loss = candidate.artifact.structure_sha256, _loss_of(candidate)
        curves = {
            self._laboratory.training_key(other): other.training
            for other in self.candidates
            if other.training is not None
            and other.artifact is not None
            and other.artifact.structure_sha256 == structure
            and _loss_of(other) == loss
        }
        curves.pop(self._laboratory.training_key(candidate), None)
        return list(curves.values())

    def _take_trained(self, candidate: Candidate, result: Artifact | Failure) -> None:
        self._trained.discard(candidate)
        given_up = self._given_up.pop(candidate, None)
        if isinstance(result, Failure):
            if given_up is None:
                self._fail(candidate, result)
                return
            self._settle(candidate, *given_up)
            self._advance()
            return
        assert candidate.artifact is not None
        is_timed = result.structure_sha256 == candidate.artifact.structure_sha256
        candidate.artifact, candidate.is_untrained = result, False
        self._note(candidate)
        if is_timed:
            self._waiting.append(candidate)
            self._advance()
        else:
            self._untimed.add(candidate)
            self._laboratory.time(candidate, partial(self._take_latency, candidate))

    def _take_artifact(self, candidate: Candidate, result: Artifact | Failure) -> None:
        if isinstance(result, Failure):
            self._fail(candidate, result)
        else:
            candidate.artifact = result
            self._note(candidate)
            self._laboratory.time(candidate, partial(self._take_latency, candidate))

    def _take_latency(self, candidate: Candidate, result: Latency | Failure) -> None:
        if isinstance(result, Failure):
            self._fail(candidate, result)
            return
        candidate.latency = result
        self._untimed.discard(candidate)
        if result.noisy:
            self._settle(candidate, "noisy", f"its latency cannot be trusted: {result.noisy[0]}")
        else:
            self._note(candidate)
            self._waiting.append(candidate)
        self._advance()

    def _take_look(self, candidate: Candidate, rung: Rung, result: LossInterval | Failure) -> None:
        if isinstance(result, Failure):
            self._fail(candidate, result)
            return
        self._looked_at.discard(candidate)
        candidate.interval = result
        candidate.rungs += 1
        budget = self._rules.budget
        limit = budget.limit if budget else None
        if rung.is_last or result.images >= self._laboratory.images:
            is_over = budget is not None and not budget.allows(result.loss)
            self._settle(candidate, "infeasible" if is_over else "feasible", _on_all_images(result, limit))
        elif limit is not None and result.low > limit:
            self._settle(candidate, "infeasible", _on_some_images(result, limit))
        else:
            self._note(candidate)
            self._waiting.append(candidate)
        self._advance()

    def _take_confirmation(self, candidate: Candidate, result: Latency | Failure) -> None:
        candidate.is_confirmed = True
        if isinstance(result, Failure):
            candidate.verdict = None
            self._fail(candidate, result)
        else:
            candidate.own_latency = result
            assert candidate.latency is not None
            if not result.noisy and result.is_apart_from(candidate.latency):
                # The structure's latency is not this artifact's: its values make a difference.
                candidate.latency = result
            self._observer.confirmed(candidate)
        self._reopen()

    def _reopen(self) -> None:
        """Takes back what was decided for the sake of a rival that is not what it seemed."""
        rivals = self.feasible
        reopened = [
            candidate
            for candidate in self.candidates
            if candidate.verdict is not None
            and candidate.verdict.kind in ("dominated", "no_gain")
            and self._rules.objective.beaten_by(candidate, rivals) is None
        ]
        self._untimed.update(reopened)
        for candidate in reopened:
            # What an earlier run decided may never have been trained, or its file may be gone.
            candidate.verdict = None
            self._make(candidate)
        self._advance()

    def _note(self, candidate: Candidate) -> None:
        self._strategy.note(candidate)
        self._observer.noted(candidate)

    def _fail(self, candidate: Candidate, failure: Failure) -> None:
        for where in (self._untimed, self._looked_at, self._trained):
            where.discard(candidate)
        candidate.failure = failure
        kind: VerdictKind = "unsupported" if self._rules.is_own_fault(failure) else "failed"
        self._settle(candidate, kind, f"{failure.stage}: {failure.reason}: {failure.message}")
        self._advance()

    def _settle(self, candidate: Candidate, kind: VerdictKind, because: str) -> None:
        interval = candidate.interval
        images = interval.images if interval else 0
        candidate.verdict = Verdict(kind, images, self._laboratory.images, interval, because)
        self._count(candidate)
        # The record comes first: a driver that dies in between tells from it when it is started again.
        self._observer.settled(candidate)
        self._tell(candidate)

    def _tell(self, candidate: Candidate) -> None:
        if not candidate.is_told:
            candidate.is_told = True
            self._strategy.tell(candidate)

    def _count(self, candidate: Candidate) -> None:
        rivals = [rival.ratio for rival in self.feasible if rival is not candidate]
        is_better = candidate.is_feasible and candidate.ratio < min(rivals, default=float("inf"))
        self._since_best = 0 if is_better else self._since_best + (not candidate.ask.is_warm)


def _loss_of(candidate: Candidate) -> object:
    """What the loss of a candidate's training is of."""
    return candidate.variant.scheme.axes().get("distillation_weight")


def _merit(candidate: Candidate) -> tuple[float, float]:
    return candidate.ratio, candidate.interval.loss if candidate.interval else 0.0


def _rank(candidate: Candidate) -> tuple[float, float]:
    assert candidate.interval is not None
    return candidate.ratio, candidate.interval.loss


def _beaten(candidate: Candidate, rival: Candidate) -> tuple[VerdictKind, str]:
    assert candidate.latency and rival.latency
    took = f"takes {candidate.ratio:.3f} of float32's time, {rival.variant.label} {rival.ratio:.3f}"
    if candidate.latency.ratio_low > rival.latency.ratio_high:
        return "dominated", took
    return "no_gain", f"{took}, within the error of measurement"


def _on_all_images(interval: LossInterval, limit: float | None) -> str:
    found = f"loses {interval.loss:.4f} on all {interval.images} images"
    return found if limit is None else f"{found}; the budget is {limit:g}"


def _on_some_images(interval: LossInterval, limit: float) -> str:
    return (
        f"loses {interval.low:.4f} to {interval.high:.4f} on the first {interval.images} images ({interval.level:.2%} "
        f"sure); the budget is {limit:g}"
    )
