"""The leaderboard as tables: a narrow one, a wide one, and one for documents."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from orchestrator.cli.output import (
    TABLE_WIDTH,
    Column,
    Row,
    number_of,
    print_line,
    print_markdown,
    print_rows,
    text_of,
)


def print_leaderboard(rows: Sequence[Row], sweep: Row, why: Mapping[str, str], wide: bool = False) -> None:
    """Prints a leaderboard for people.

    Args:
        rows: What `results.queries.leaderboard` lists.
        sweep: What `results.queries.find_sweep` finds: its name, evaluation set and budget.
        why: What `orchestrator.explanations` says, by variant.
        wide: Whether to print all that matters instead of what fits 120 characters.
    """
    budget = "no budget"
    if sweep["budget_metric"] is not None:
        kind = " of the reference's" if sweep["budget_relative"] else ""
        budget = f"budget: {sweep['budget_metric']} loss <= {sweep['budget_max_loss']:g}{kind}"
    title = f"{sweep['sweep']}: {sweep['images']} images of {sweep['dataset']}, {budget}"
    columns, width = leaderboard_columns(rows, wide), WIDE_WIDTH if wide else TABLE_WIDTH
    stopped = [row for row in rows if row["status"] == "stopped"]
    print_rows([row for row in rows if row["status"] != "stopped"], columns, title=title, width=width)
    if stopped:
        print_line("")
        decided = _stopped_columns(sweep["images"], wide, has_trained(rows))
        print_rows(stopped, decided, title="not scored on every image:", width=width)
        print_line("")
    for row in rows:
        if row["status"] == "failed":
            print_line(f"failed: {row['variant']}: {_failure(row)}")
        elif executes_less(row):
            held, done = row["int8_mac_share"], row["executed_int8_mac_share"]
            line = f"in float: {row['variant']}: of its {held:.0%} int8 multiply-accumulates {done:.0%} are executed"
            print_line(textwrap.fill(line, TABLE_WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    if not wide and any(row["simulated"] for row in rows):
        print_line(
            f"{SIMULATED_MARK} simulated: no kernel makes use of such weights; the time is that without the transform"
        )
    _explain_speed(why)
    _explain_noise(rows)
    is_search = sweep["kind"] != "sweep"
    # The reference is what a search compares with, and never what it looks for.
    candidates = [row for row in rows if not (is_search and row["is_reference"])]
    hosts = {row["host"] for row in rows if row["host"]}
    if len(hosts) > 1:
        print_line(f"latencies come from {len(hosts)} hosts: each host is ranked by itself")
    elif rows:
        print_line(verdict(candidates, sweep["budget_metric"] is not None))
    if is_search:
        print_line(account(rows, sweep))


def account(rows: Sequence[Row], sweep: Row) -> str:
    """Sums up what a search decided, and what that took.

    Args:
        rows: What `results.queries.leaderboard` lists.
        sweep: What `results.queries.find_sweep` finds.

    Returns:
        One line: verdicts of each kind, and the images inferred as a share of those that scoring every build takes.
    """
    counts = Counter(row["verdict"] for row in rows if row["verdict"] and not row["is_reference"])
    verdicts = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counts.most_common()) or "none yet"
    inferred, everything = sweep["images_inferred"], len({_build(row) for row in rows}) * sweep["images"]
    return f"verdicts: {verdicts}; {inferred} of {everything} images inferred ({inferred / everything:.1%})"


def print_nearest(rows: Sequence[Row]) -> None:
    """Prints near misses for people.

    Args:
        rows: What `results.queries.nearest` lists.
    """
    for row in rows:
        print_line(f"{row['variant']}: {row['latency_ratio']:.2f} of float32's time")
        line = f"  needs {row['needs']}"
        print_line(textwrap.fill(line, TABLE_WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def _build(row: Row) -> tuple[object, ...]:
    """What decides about a variant's detections: not the number of threads."""
    from results.schema import AXES

    return tuple(row[name] for name in ("scheme", "toolchain", *AXES, "runtime", "runtime_options"))


def decision(row: Row, all_images: int) -> str:
    """Says what a search decided about a variant, and on how many images.

    Args:
        row: A row of the leaderboard.
        all_images: Images of the whole evaluation.

    Returns:
        A few words; the loss on a part of the images is marked as such.
    """
    words = str(row["verdict"] or row["status"]).replace("_", " ")
    if not row["verdict_images"]:
        return words
    words += f" after {row['verdict_images']} of {all_images} images"
    if row["verdict_loss"] is None or row["verdict"] not in ("infeasible", "unsettled"):
        return words
    return f"{words}: loss {row['verdict_loss']:.3f} [{row['verdict_loss_low']:.3f}, {row['verdict_loss_high']:.3f}]"


def _explain_speed(why: Mapping[str, str]) -> None:
    """Prints why variants gain nothing, a line for all of one reason."""
    reasons: dict[str, list[str]] = {}
    for label, line in why.items():
        reasons.setdefault(line.partition("): ")[2], []).append(label)
    for labels in reasons.values():
        more = f" (and {len(labels) - 1} more for the same reason)" if len(labels) > 1 else ""
        line = f"{labels[0]}: {why[labels[0]]}{more}"
        print_line(textwrap.fill(line, TABLE_WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def _explain_noise(rows: Sequence[Row]) -> None:
    noisy = sum(bool(row["latency_noisy"]) for row in rows)
    if noisy:
        times = "a latency was" if noisy == 1 else f"{noisy} latencies were"
        print_line(
            f"{NOISY_MARK} noisy: the machine was disturbed while {times} measured; such rows make no winner "
            "(`results show`: why)"
        )


def executes_less(row: Row) -> bool:
    """Says whether a runtime executes less in int8 than the artifact holds: the rest of it runs in float."""
    held, done = row["int8_mac_share"], row["executed_int8_mac_share"]
    # A variant may have the latency of its untrained twin and no artifact of its own.
    return held is not None and done is not None and done < held - 0.005


def print_for_documents(rows: Sequence[Row], all_images: int) -> None:
    """Prints a leaderboard as Markdown, in the order of the spec, which does not change from run to run.

    Args:
        rows: What `results.queries.leaderboard` lists.
        all_images: Images of the whole evaluation.
    """
    ordered = sorted(rows, key=lambda row: row["position"])
    shown = [row for row in ordered if row["status"] in ("done", "pending")]
    print_markdown(shown, leaderboard_columns(rows, wide=True))
    _print_list(
        "Not scored on every image",
        {row["variant"]: decision(row, all_images) for row in ordered if row["status"] == "stopped"},
    )
    if any(row["latency_noisy"] for row in rows):
        print_line("")
        _explain_noise(rows)
    _print_list("Failed", {row["variant"]: _failure(row) for row in ordered if row["status"] == "failed"})


def _print_list(title: str, lines: Mapping[str, str]) -> None:
    if lines:
        print_line(f"\n{title}:\n")
    for label, line in lines.items():
        print_line(f"- `{label}`: {line}")


def _failure(row: Row) -> str:
    return f"{row['failure_reason']}: {row['failure_message']}"


def verdict(rows: Sequence[Row], has_budget: bool) -> str:
    """Names the best row and how sure that is.

    Args:
        rows: What `results.queries.leaderboard` lists, in its order.
        has_budget: Whether the sweep has one.

    Returns:
        One or two lines.
    """
    timed = [row for row in rows if row["status"] == "done" and row["latency_ratio"] is not None]
    within = [row for row in timed if row["feasible"] is not False]
    if not within:
        return "no variant is within the budget" if timed else "no variant has been measured yet"
    calm = [row for row in within if not row["latency_noisy"]]
    if not calm:
        which = "within the budget " if has_budget else ""
        return f"no variant is called the fastest: every latency {which}is noisy; sweep again on a quiet machine"
    best = calm[0]
    rivals = [row for row in calm[1:] if row["latency_ratio_low"] <= best["latency_ratio_high"]]
    label = "fastest within the budget" if has_budget else "fastest"
    loss = "no reference to compare AP with" if best["ap_loss"] is None else f"AP loss {best['ap_loss']:+.3f}"
    gain = f"{best['latency_ratio']:.2f} of float32's time, {loss}"
    tie = f"; {len(rivals)} more as fast within their intervals" if rivals else ""
    return f"{label}: {best['variant']}\n  {gain}{tie}"


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}},{high:{form}}]"


def _loss(row: Row) -> str:
    if row["ap_loss"] is None:
        return "-"
    return f"{row['ap_loss']:+.3f}" + _interval(row.get("ap_loss_low"), row.get("ap_loss_high"), "+.3f")


def _short_loss(row: Row) -> str:
    """The loss without the zeros before the points, which fits beside a long label."""
    return _loss(row).replace("0.", ".")


def _ratio(row: Row) -> str:
    if row["latency_ratio"] is None:
        return "-"
    return (
        _noise(row)
        + f"{row['latency_ratio']:.2f}"
        + _interval(row["latency_ratio_low"], row["latency_ratio_high"], ".2f")
    )


def _short_ratio(row: Row) -> str:
    if row["latency_ratio"] is None:
        return "-"
    # Two digits of a slow variant's ratio would not fit beside the longest label.
    return _noise(row) + format(row["latency_ratio"], ".2f" if row["latency_ratio"] < _SLOW else ".1f")


def _noise(row: Row) -> str:
    return NOISY_MARK if row["latency_noisy"] else ""


def _status(row: Row) -> str:
    if row["status"] != "done" or row["feasible"] is None:
        return str(row["status"])
    return "within" if row["feasible"] else "over"


def _marked_status(row: Row) -> str:
    return _status(row) + (SIMULATED_MARK if row["simulated"] else "")


def has_trained(rows: Sequence[Row]) -> bool:
    """Says whether any of the rows of a leaderboard has had a training."""
    return any(row["training_key"] is not None for row in rows)


def leaderboard_columns(rows: Sequence[Row], wide: bool = False) -> tuple[Column, ...]:
    """Returns the columns of a leaderboard: with the cost of trainings, where there were any.

    Args:
        rows: What `results.queries.leaderboard` lists.
        wide: Whether for the wide table. The narrow one has no room for both that cost and AP50.
    """
    columns = WIDE_LEADERBOARD if wide else LEADERBOARD
    if not has_trained(rows):
        return columns
    *others, status = (column for column in columns if wide or column.heading != "AP50")
    return *others, CORE_HOURS, status


def _stopped_columns(all_images: int, wide: bool, with_cost: bool) -> tuple[Column, ...]:
    def decided(row: Row) -> str:
        words = decision(row, all_images)
        # As much shorter as it takes to fit beside a long label.
        return words if wide else words.replace(" images", "").replace("0.", ".").replace(", ", ",")

    cost = (CORE_HOURS,) if with_cost else ()
    ratio = Column("ratio", _ratio if wide else _short_ratio, "right")
    return text_of("variant"), ratio, *cost, Column("decided", decided)


CORE_HOURS = number_of("training_core_seconds", "core-h", ".3f", 1 / 3600)
"""What the training of a variant took, in hours of CPU time."""

SIMULATED_MARK = "*"
"""Stands behind the status of a simulated variant."""

_SLOW = 9.995
"""Ratios from here on are shown with one digit in the narrow table."""

NOISY_MARK = "~"
"""Stands before the latency ratio of a noisy run."""

LEADERBOARD = (
    text_of("variant"),
    number_of("ap", "AP"),
    number_of("ap50", "AP50"),
    Column("loss [interval]", _short_loss, "right"),
    number_of("latency_ms_p50", "ms", ".1f"),
    Column("ratio", _short_ratio, "right"),
    number_of("size_bytes", "MB", ".1f", 1e-6),
    Column("status", _marked_status),
)
"""Columns of a leaderboard; they fit 120 characters beside a label of 63."""

WIDE_LEADERBOARD = (
    text_of("variant"),
    number_of("ap", "AP"),
    number_of("ap50", "AP50"),
    number_of("ap_small", "AP small"),
    number_of("ap_medium", "AP medium"),
    number_of("ap_large", "AP large"),
    Column("AP loss [interval]", _loss, "right"),
    Column("latency ratio [interval]", _ratio, "right"),
    number_of("latency_ms_p50", "ms", ".1f"),
    number_of("images_per_second", "images/s", ".1f"),
    number_of("load_ms", "load ms", ".0f"),
    number_of("first_inference_ms", "first ms", ".0f"),
    number_of("peak_memory_bytes", "peak MiB", ".0f", 2**-20),
    number_of("size_bytes", "stored bytes", ".0f"),
    number_of("compressed_bytes", "compressed bytes", ".0f"),
    number_of("int8_mac_share", "int8 MACs", ".3f"),
    number_of("quantized_mac_share", "quantized MACs", ".3f"),
    Column("simulated", lambda row: "yes" if row["simulated"] else "no"),
    Column("status", _status),
)
"""Columns of the wide leaderboard and of the one for documents."""

WIDE_WIDTH = 290
"""Characters of a line of the wide leaderboard."""
