"""Trainings as tables: what each cost and bought, and how it went."""

import sys
from collections.abc import Sequence

from orchestrator.cli.output import Column, Row, number_of, print_line, print_rows, text_of

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS = "_.-~=+*#"
"""For outputs that cannot show the others."""


def print_trainings(rows: Sequence[Row], sweep: Row) -> None:
    """Prints the trained variants of a sweep for people.

    Args:
        rows: What `results.queries.trainings` lists.
        sweep: What `results.queries.find_sweep` finds.
    """
    title = f"{sweep['sweep']}: what trainings bought, AP on {sweep['images']} images of {sweep['dataset']}"
    print_rows(rows, TRAININGS, title=title, empty="no training has begun", width=TRAININGS_WIDTH)
    for row in rows:
        if row["stopped_because"] is not None:
            print_line(f"stopped: {row['variant']}: {row['stopped_because']}")
    trainings = {row["training_key"]: row["core_hours"] for row in rows}
    if rows:
        number = "1 training" if len(trainings) == 1 else f"{len(trainings)} trainings"
        shared = "" if len(trainings) == len(rows) else f" of {len(rows)} variants, which share some"
        print_line(f"{number}{shared}: {sum(trainings.values()):.3f} core-hours in all")


def print_curve(points: Sequence[Row]) -> None:
    """Prints a learning curve for people.

    Args:
        points: What `results.queries.learning_curve` lists.
    """
    losses = [point["held_out_loss"] for point in points]
    (best,) = [point for point in points if point["is_best"]]
    updates = f"after {best['step']} of {points[-1]['step']} updates"
    print_line(
        f"held-out loss {sparkline(losses)} {losses[0]:.4f} at first, {best['held_out_loss']:.4f} at best, {updates}"
    )
    print_rows(points, CURVE)


def sparkline(values: Sequence[float]) -> str:
    """Draws numbers as a line of blocks, the lowest as the lowest.

    Args:
        values: Numbers.

    Returns:
        A character for each.
    """
    blocks = _BLOCKS if _can_print(_BLOCKS) else _PLAIN_BLOCKS
    low, span = min(values), max(values) - min(values)
    top = len(blocks) - 1
    return "".join(blocks[round((value - low) / span * top) if span else 0] for value in values)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


TRAININGS = (
    text_of("variant"),
    text_of("status"),
    Column("updates", lambda row: f"{row['step']}/{row['steps']}", "right"),
    number_of("best_step", "best at", ".0f"),
    number_of("first_held_out_loss", "first loss"),
    number_of("best_held_out_loss", "best loss"),
    number_of("core_hours", "core-h"),
    number_of("untrained_ap", "untrained AP"),
    number_of("ap", "AP"),
    number_of("ap_gained", "gained", "+.4f"),
    number_of("ap_gained_per_core_hour", "AP/core-h", "+.4f"),
)
"""Columns of a list of trainings."""

TRAININGS_WIDTH = 176
"""Characters of a line of it: labels of trained variants are long."""

CURVE = (
    number_of("step", "updates", ".0f"),
    Column("held-out loss", lambda row: f"{'*' if row['is_best'] else ''}{row['held_out_loss']:.4f}", "right"),
    number_of("loss", "loss", ".4f"),
    number_of("box_loss", "boxes", ".4f"),
    number_of("score_loss", "scores", ".4f"),
    number_of("distillation_loss", "distillation", ".4f"),
    number_of("images_per_second", "images/s", ".1f"),
    number_of("core_seconds", "core-s", ".1f"),
)
"""Columns of a learning curve; a star marks the weights that are kept."""
