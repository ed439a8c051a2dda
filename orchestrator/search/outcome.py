"""Outcomes: what an optimizer is told about a candidate, so that it learns what is known and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.search.candidate import Candidate
from orchestrator.search.objectives import VALUES

BUDGET = "budget"
"""Constraint: loss beyond the budget, at most 0 where it is kept."""

SUPPORT = "unsupported"
"""Constraint: 1 for what cannot be made or scored."""

BEATEN = "beaten"
"""Constraint: 1 for what a feasible candidate beat before its own loss was known."""

_UNKNOWN = 1e-6
"""Constraint of a candidate whose loss is unknown, for samplers that learn from complete trials only: as good as at
the limit, and never the best."""


@dataclass(frozen=True)
class Outcome:
    """The end of a trial."""

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    """`COMPLETE`: its values are known. `PRUNED`: it was ended early, and is learned from. `FAIL`: nothing is."""

    values: tuple[float, ...] = ()
    """What was made small, where it is complete."""

    reported: float | None = None
    """The value of a trial of one objective that was ended early, if it is known."""

    constraints: dict[str, float] = field(default_factory=dict)
    """Positive where broken."""


def outcome_of(
    candidate: Candidate,
    objectives: Sequence[str],
    limit: float | None,
    tells_constraints: bool = True,
    learns_from_pruned: bool = True,
) -> Outcome:
    """Says how the trial of a candidate ends.

    A candidate that was ended as infeasible on a part of the images has a latency like any other: it is complete if
    the loss is no objective. Whether one that another one beat is feasible is not known, so it is never complete
    without a constraint: Optuna would take it for feasible.

    Args:
        candidate: One with a verdict.
        objectives: Keys of `VALUES`.
        limit: The budget's largest loss; None without a budget.
        tells_constraints: Whether the optimizer may know about feasibility; if not, everything that was scored is
            complete.
        learns_from_pruned: Whether it may be left without trials that were ended early; otherwise those of known
            values are complete, with a constraint that is hardly broken.

    Returns:
        The outcome.
    """
    assert candidate.verdict is not None
    kind = candidate.verdict.kind
    if kind in ("failed", "unsettled", "noisy") or (kind == "unsupported" and not tells_constraints):
        return Outcome("FAIL")
    if kind == "unsupported":
        return Outcome("PRUNED", constraints={SUPPORT: 1.0})
    is_known = "ap_loss" not in objectives or (candidate.interval is not None and not candidate.verdict.is_partial)
    values = tuple(VALUES[name](candidate) for name in objectives) if is_known else ()
    constraints = {BUDGET: _excess(candidate, limit)} if limit is not None and tells_constraints else {}
    if kind in ("feasible", "infeasible"):
        return Outcome("COMPLETE", values, None, constraints) if is_known else Outcome("PRUNED", (), None, constraints)
    if constraints and values and not learns_from_pruned:
        return Outcome("COMPLETE", values, None, {BUDGET: _UNKNOWN})
    # Without this TPE would take what is nearly as fast as the best one for better than what is faster and loses a
    # little too much, and search among the slower ones.
    beaten = {BEATEN: 1.0} if tells_constraints else {}
    return Outcome("PRUNED", (), values[0] if len(values) == 1 else None, beaten)


def _excess(candidate: Candidate, limit: float) -> float:
    interval, verdict = candidate.interval, candidate.verdict
    if interval is None or verdict is None:
        return 0.0
    if verdict.kind == "feasible":
        # A search lets a loss be over the limit by an error of rounding; Optuna does not.
        return min(0.0, interval.loss - limit)
    # On a part of the images the lower end decided; the loss there need not be above it.
    return (max(interval.loss, interval.low) if verdict.is_partial else interval.loss) - limit
