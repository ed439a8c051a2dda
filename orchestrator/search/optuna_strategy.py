"""The strategy of a study: Optuna proposes, nothing is asked for twice, and every trial ends with what is known."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.search.axes import Axes, Choice
from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.optuna_storage import open_study
from orchestrator.search.outcome import Outcome, outcome_of
from orchestrator.search.support import Support
from tasks.errors import DatabaseMistake
from tasks.types import Variant

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from orchestrator.search.optuna_study import OptunaStudy

__all__ = ["OptunaStrategy", "Settled", "open_study"]


@dataclass(frozen=True)
class Settled:
    """A trial of an earlier run of a study that will not be asked for again."""

    number: int
    """Number of the trial."""

    variant: Variant
    """What it asked for."""

    state: str
    """`COMPLETE`, `PRUNED`, or `FAIL` if its latency was noisy in all attempts."""

    attributes: dict[str, Any]
    """Its user attributes: `variant`, and where they are known `warm`, `artifact`, `latency_ratio`, `verdict`,
    `images`, `because`."""


class OptunaStrategy:
    """Asks Optuna for variants and tells it what became of them; see `orchestrator.search.strategy.Strategy`.

    One driver at a time: trials that are running in the storage are taken for those of a driver that died.
    """

    def __init__(
        self,
        study: "OptunaStudy",
        variants: Iterable[Variant],
        *,
        limit: float | None,
        known: Iterable[Variant] = (),
        tells_constraints: bool = True,
    ) -> None:
        """Finds out what earlier runs of the study did.

        Args:
            study: Of `open_study`.
            variants: The space: distinct variants.
            limit: The budget's largest loss; None without a budget.
            known: Variants about which everything is known, to be asked for first.
            tells_constraints: Whether Optuna hears what is feasible; a study without serves as a baseline only.

        Raises:
            DatabaseMistake: If the study was begun with another space.
        """
        from orchestrator.search.unseen import Unseen

        self.study = study
        """Optuna's study."""
        self.axes = Axes(variants, study.kind.is_flat)
        """The space."""
        self._limit, self._tells_constraints = limit, tells_constraints
        self._left: dict[Variant, dict[str, Choice]] = {each: self.axes.params(each) for each in self.axes.variants}
        self._known = dict.fromkeys(variant for variant in known if variant in self._left)
        self._open: dict[int, Trial] = {}
        self._interrupted: list[tuple[FrozenTrial, Variant]] = []
        self._support = Support()
        self._reported: set[int] = set()
        self._settled: list[Settled] = []
        self._check_space()
        self._take_stock()
        support = self._support if study.kind.avoids_unsupported and tells_constraints else None
        self._sampler = Unseen(study.sampler, self.axes, self._left.values(), study.run_seed, support)
        study.sampler = self._sampler

    def settled(self) -> list[Settled]:
        """Lists what earlier runs settled, in order."""
        return list(self._settled)

    def ask(self) -> Ask | None:
        """Returns what was left running, then what is known, then what the sampler proposes; None if nothing is left.

        A variant that an earlier run failed to measure, or did not get to, is asked for again.
        """
        if self._interrupted:
            frozen, variant = self._interrupted.pop(0)
            trial = self.study.running(frozen.number)
            return self._opened(trial, variant, frozen.user_attrs)
        while self._left:
            wanted = next((variant for variant in self._known if variant in self._left), None)
            self._sampler.wanted = None if wanted is None else self._left[wanted]
            trial = self.study.ask()
            found = self._chosen(trial)
            if found is not None and found in self._left:
                del self._left[found]
                return self._opened(trial, found, {})
            # Somebody else put it into the queue, by hand or from the dashboard.
            trial.set_user_attr("because", "no variant of the space, or one that was asked for already")
            self._finish(trial, Outcome("FAIL"))
        return None

    def note(self, candidate: Candidate) -> None:
        """Writes down the artifact, then the latency ratio."""
        trial = self._open.get(candidate.ask.number)
        if trial is None or candidate.artifact is None or candidate.interval is not None:
            return
        if candidate.latency is not None:
            trial.set_user_attr("latency_ratio", candidate.ratio)
        if not candidate.is_untrained and (candidate.latency is None or candidate.training is not None):
            trial.set_user_attr("artifact", candidate.artifact.sha256)

    def tell(self, candidate: Candidate) -> None:
        """Ends the trial. What is not running, since it was told before, is left alone."""
        trial = self._open.pop(candidate.ask.number, None)
        verdict = candidate.verdict
        if trial is None or verdict is None:
            return
        for name, value in (("verdict", verdict.kind), ("images", verdict.images), ("because", verdict.because)):
            trial.set_user_attr(name, value)
        self._learn(candidate.variant, verdict.kind)
        learns = self.study.kind.learns_from_pruned
        self._finish(trial, outcome_of(candidate, self.study.objectives, self._limit, self._tells_constraints, learns))

    def _learn(self, variant: Variant, kind: str | None) -> None:
        if kind not in (None, "failed", "unsettled"):
            self._support.learn(self.axes.params(variant), kind != "unsupported")

    def _check_space(self) -> None:
        axes = json.dumps({axis: list(choices) for axis, choices in self.axes.choices.items()})
        before = self.study.user_attrs.get("axes")
        if before is None:
            self.study.set_user_attr("axes", axes)
        elif before != axes:
            raise DatabaseMistake(
                f"the study {self.study.study_name} in this database has another space or another kind of sampler; "
                "give the new one another name"
            )

    def _take_stock(self) -> None:
        """Sorts the trials of earlier runs."""
        trials = self.study.get_trials(deepcopy=False)
        for frozen in trials:
            state, variant = frozen.state.name, self.axes.variant(frozen.params)
            is_settled = state in ("COMPLETE", "PRUNED") or frozen.user_attrs.get("verdict") == "noisy"
            if variant is not None and variant in self._left and is_settled:
                del self._left[variant]
                self._settle(frozen, variant)
                self._learn(variant, frozen.user_attrs.get("verdict"))
        for frozen in trials:
            if frozen.state.name == "RUNNING":
                self._take_up(frozen)
        self._settled.sort(key=lambda each: each.number)

    def _settle(self, frozen: "FrozenTrial", variant: Variant) -> None:
        self._settled.append(Settled(frozen.number, variant, frozen.state.name, dict(frozen.user_attrs)))

    def _take_up(self, frozen: "FrozenTrial") -> None:
        from optuna.trial import TrialState

        variant = self.axes.variant(frozen.params)
        if variant is None or variant not in self._left:
            self.study.tell(frozen.number, state=TrialState.FAIL)
            return
        del self._left[variant]
        self._interrupted.append((frozen, variant))
        # The driver died between two writes; Optuna takes neither a value nor a constraint twice.
        self._reported |= {frozen.number} if frozen.intermediate_values else set()

    def _chosen(self, trial: "Trial") -> Variant | None:
        params: dict[str, Choice] = {}
        while (axis := self.axes.next(params)) is not None:
            params[axis] = trial.suggest_categorical(axis, self.axes.choices[axis])
        return self.axes.variant(params)

    def _opened(self, trial: "Trial", variant: Variant, attributes: dict[str, Any]) -> Ask:
        is_warm = attributes.get("warm", variant in self._known and not attributes)
        if "variant" not in attributes:
            if is_warm:
                trial.set_user_attr("warm", True)
            trial.set_user_attr("variant", variant.label)
        self._open[trial.number] = trial
        return Ask(trial.number, variant, is_warm)

    def _finish(self, trial: "Trial", outcome: Outcome) -> None:
        from optuna.trial import TrialState

        told = trial.constraints
        for name, value in outcome.constraints.items():
            if name not in told:
                trial.set_constraint(name, value)
        if outcome.reported is not None and trial.number not in self._reported:
            trial.report(outcome.reported, 0)
        self.study.tell(trial, list(outcome.values) or None, TrialState[outcome.state])
