"""What a search found, for people and for programs. Pure functions of rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.study import StudyOutcome

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """A search and the rows that it left."""

    outcome: "StudyOutcome"
    """What it did."""

    rows: Sequence[Row]
    """What `results.queries.leaderboard` lists."""

    sweep: Row
    """What `results.queries.find_sweep` finds."""

    nearest: Sequence[Row]
    """What `results.queries.nearest` lists."""

    objectives: tuple[str, ...] = ("latency",)
    """What it made small."""

    error_rate: float | None = None
    """How often a variant within the budget may be ended wrongly; None if none is ended early."""

    @property
    def winner(self) -> Row | None:
        """The leaderboard's row of the fastest feasible variant; None if nothing is feasible."""
        return next((row for row in self.rows if row["variant_key"] == self.outcome.winner_key), None)

    @property
    def reference(self) -> Row | None:
        """The leaderboard's row of the float32 reference."""
        return next((row for row in self.rows if row["is_reference"]), None)

    @property
    def front(self) -> list[Row]:
        """Feasible variants that no other one beats in every objective, fastest first; empty for one objective.

        Of those that are equal in every objective, the one of the least loss: trainings of one structure, say.
        """
        if len(self.objectives) < 2:
            return []
        feasible = [row for row in self.rows if row["verdict"] == "feasible"]
        values = {row["variant_key"]: tuple(_VALUES[name](row) for name in self.objectives) for row in feasible}
        least: dict[tuple[float, ...], float] = {}
        for row in feasible:
            value = values[row["variant_key"]]
            least[value] = min(_lost(row), least.get(value, math.inf))
        best = [
            row
            for row in feasible
            if _lost(row) == least[value := values[row["variant_key"]]]
            and not any(_beats(each, value) for each in least)
        ]
        return sorted(best, key=lambda row: values[row["variant_key"]])


def report(found: Found) -> dict[str, Any]:
    """Makes what `--json` prints.

    Args:
        found: What was found.

    Returns:
        `winner` (a row of the leaderboard, or None), `nearest` (rows; empty unless nothing is feasible), `trials`,
        `verdicts` by kind, `images_inferred`, `images_exhaustive`, `stopped_by`, `study`, `study_key`, `seconds`,
        `front` (rows of the leaderboard; empty for one objective).
    """
    outcome, winner = found.outcome, found.winner
    return {
        "winner": dict(winner) if winner else None,
        "nearest": [] if winner else [dict(row) for row in found.nearest],
        "trials": outcome.trials,
        "verdicts": dict(outcome.verdicts),
        "images_inferred": outcome.images_inferred,
        "images_exhaustive": outcome.images_exhaustive,
        "stopped_by": outcome.stopped_by,
        "study": found.sweep["sweep"],
        "study_key": outcome.sweep_key,
        "seconds": outcome.seconds,
        "front": [dict(row) for row in found.front],
    }


def summary(found: Found, export: str) -> list[str]:
    """Says what was found, what it is worth, what it costs and how sure that is.

    Args:
        found: What was found.
        export: Options of `quantsweep export` that name the database and the study.

    Returns:
        Lines.
    """
    winner = found.winner
    parts = [
        *(_nothing(found) if winner is None else _victory(found, winner)),
        ("tried", [_tried(found)]),
        ("spent", _spent(found)),
    ]
    if winner is not None:
        parts.append(("export", [f"quantsweep export {winner['variant']} --out FOLDER {export}"]))
    title = (
        f"{found.sweep['sweep']}: {found.sweep['images']} images of {found.sweep['dataset']}, {_budget(found.sweep)}"
    )
    return [title, *(line for name, texts in parts for line in _listed(name, texts))]


def _listed(name: str, texts: Sequence[str]) -> list[str]:
    return [f"{name if not position else '':<8} {text}" for position, text in enumerate(texts)]


def _victory(found: Found, winner: Row) -> list[tuple[str, list[str]]]:
    named = "winner" if found.objectives == ("latency",) else "fastest"
    return [
        (named, [winner["variant"]]),
        ("gains", _gains(winner, found.reference)),
        ("costs", _costs(winner, found.sweep)),
        ("sure", _sure(found, winner)),
    ]


def _gains(winner: Row, reference: Row | None) -> list[str]:
    own = winner["own_latency_ratio"] is not None
    prefix = "own_latency_ratio" if own else "latency_ratio"
    ratio, low, high = winner[prefix], winner[f"{prefix}_low"], winner[f"{prefix}_high"]
    source = "a second measurement, of its own bytes" if own else "one measurement"
    lines = [f"{1 / ratio:.2f} times as fast as LiteRT float32 [{1 / high:.2f}, {1 / low:.2f}], from {source}"]
    if low > 1:
        lines = [f"nothing: it takes {ratio:.2f} times LiteRT float32's time [{low:.2f}, {high:.2f}], from {source};"]
        lines.append("the float32 reference, which is never a candidate, is faster and loses nothing")
    elif high >= 1:
        lines.append("which may be none: the interval holds 1")
    size = f"{winner['size_bytes'] / 1e6:.1f} MB"
    if reference is not None and reference["size_bytes"] is not None:
        size += f" instead of {reference['size_bytes'] / 1e6:.1f}"
    instead = f" instead of {winner['reference_ms_p50']:.2f}" if winner["reference_ms_p50"] else ""
    return [*lines, f"{winner['latency_ms_p50']:.2f} ms an image{instead}; {size}"]


def _costs(winner: Row, sweep: Row) -> list[str]:
    lines = [f"{_loss_of(winner, sweep)} on the {winner['images']} images that it was chosen on"]
    flattering = "which flatters: the least of many noisy losses is too low"
    if winner["confirm_ap_loss"] is None:
        return [*lines, f"{flattering}; `evaluation: {{search: ..., confirm: ...}}` would tell"]
    lines.append(flattering)
    interval = _interval(winner["confirm_ap_loss_low"], winner["confirm_ap_loss_high"])
    told = f"AP loss {_signed(winner['confirm_ap_loss'])}{interval} on {winner['confirm_images']} confirmation images"
    is_ap = sweep["budget_metric"] == "ap" and not sweep["budget_relative"]
    over = is_ap and winner["confirm_ap_loss"] > sweep["budget_max_loss"]
    lines.append(f"{told}, which had no part in the choice")
    return [*lines, "that is over the budget"] if over else lines


def _loss_of(row: Row, sweep: Row) -> str:
    if row["budget_loss"] is None or row["verdict_loss_low"] is None:
        return f"AP loss {_signed(row['ap_loss'])}{_interval(row['ap_loss_low'], row['ap_loss_high'])}"
    metric, low, high = _metric(sweep), row["verdict_loss_low"], row["verdict_loss_high"]
    if sweep["budget_relative"]:
        share = f"{100 * row['budget_loss']:+.2f} % [{100 * low:+.2f}, {100 * high:+.2f}]"
        return f"{metric} loss {share} of LiteRT float32's {metric}"
    return f"{metric} loss {_signed(row['budget_loss'])}{_interval(low, high)}"


def _sure(found: Found, winner: Row) -> list[str]:
    scorer = winner["confirmed_by"]
    lines = [
        f"{scorer} gives the same AP on all {winner['images']} images"
        if scorer
        else "its AP was not confirmed by pycocotools"
    ]
    ties = found.outcome.verdicts.get("no_gain", 0)
    if ties and found.objectives == ("latency",):
        lines.append(f"{ties} more may be as fast, within the error of measurement; they were not scored further")
    if found.error_rate is not None and found.outcome.verdicts.get("infeasible"):
        lines.append(
            f"of variants within the budget, at most {found.error_rate:.0%} are taken for over it early, by design"
        )
    return lines


def _nothing(found: Found) -> list[tuple[str, list[str]]]:
    if found.sweep["budget_metric"] is None:
        return [("result", ["nothing has been scored on every image, so nothing is called best"])]
    lines = [f"no variant is known to be within the budget ({_budget(found.sweep)}); nothing is called best"]
    verdicts = found.outcome.verdicts
    if verdicts.get("noisy"):
        lines.append(f"{verdicts['noisy']} latencies were disturbed, and make no winner: the machine was not quiet")
    if verdicts.get("unsettled"):
        lines.append(f"{verdicts['unsettled']} were not decided when it ended; with a higher limit it goes on")
    near: list[str] = []
    for row in found.nearest:
        near += [row["variant"], f"  {row['latency_ratio']:.2f} of float32's time; needs {row['needs']}"]
    return [("result", lines), ("nearest", near or ["nothing came as far as a score"])]


def _tried(found: Found) -> str:
    verdicts = found.outcome.verdicts
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in _by_count(verdicts))
    candidates = sum(not row["is_reference"] for row in found.rows)
    warm = sum(verdicts.values()) - found.outcome.trials
    known = f", {warm} of them known before" if warm > 0 else ""
    return f"{sum(verdicts.values())} of {candidates} variants{known}: {kinds or 'no verdict yet'}"


def _spent(found: Found) -> list[str]:
    outcome = found.outcome
    share = f" ({outcome.images_inferred / outcome.images_exhaustive:.1%})" if outcome.images_exhaustive else ""
    inferred = (
        f"{outcome.images_inferred:,} images inferred of the {outcome.images_exhaustive:,} that scoring every build"
    )
    lines = [f"{inferred} takes{share}; {outcome.seconds:.0f} s"]
    return [*lines, f"ended by: {outcome.stopped_by}"] if outcome.stopped_by else [*lines, "it has not ended yet"]


def _by_count(verdicts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((kind, count) for kind, count in verdicts.items() if count), key=lambda each: (-each[1], each[0]))


def _budget(sweep: Row) -> str:
    if sweep["budget_metric"] is None:
        return "no budget"
    share = " of the reference's" if sweep["budget_relative"] else ""
    return f"{_metric(sweep)} loss <= {sweep['budget_max_loss']:g}{share}"


def _metric(sweep: Row) -> str:
    return str(sweep["budget_metric"]).upper()


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{_signed(low)}, {_signed(high)}]"


def _signed(loss: float) -> str:
    """Writes a loss with its sign, and a loss of nothing without a minus."""
    return f"{round(loss, 4) + 0.0:+.4f}"


def _lost(row: Row) -> float:
    loss = row["verdict_loss"] if row["verdict_loss"] is not None else row["ap_loss"]
    return float(loss)


_VALUES = {
    "latency": lambda row: float(row["latency_ratio"]),
    "ap_loss": _lost,
    "size": lambda row: float(row["size_bytes"]),
}
"""Columns of the objectives."""


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
