"""Plots of a replay: one HTML file that needs no network."""

from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import UserMistake
from tasks.storage import write_whole

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B", "#BCBD22", "#17BECF",
)  # fmt: skip
"""Colours that remain apart for readers who see few colours; they repeat after the last one."""

_FAINT = 0.15


def write_plot(report: dict[str, Any], path: Path) -> None:
    """Draws regret against images inferred, and the images that it took to find the optimum.

    Args:
        report: As `orchestrator.replay.report.Report.plain` gives it.
        path: The HTML file; one that is there is replaced.

    Raises:
        UserMistake: If the file cannot be written.
    """
    page = figure(report).to_html(include_plotlyjs=True, full_html=True)
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise UserMistake(f"--plot {path} cannot be written: {error.strerror}") from error


def figure(report: dict[str, Any]) -> "Figure":
    """Makes the figure; see `write_plot`."""
    from plotly.graph_objects import Box, Scatter
    from plotly.subplots import make_subplots

    optima: dict[str, list[float]] = {name: list(_images_to_optimum(report, name)) for name in _names(report)}
    drawn = make_subplots(
        rows=2, cols=1, row_heights=[0.6, 0.4], vertical_spacing=0.12,
        subplot_titles=(
            "Regret of the best feasible variant found so far (median, quartiles as a band)",
            "Images inferred until the optimum was found (searches that never found it are left out)",
        ),
    )  # fmt: skip
    for number, each in enumerate(report["strategies"]):
        name, colour, curve = each["strategy"], _COLOURS[number % len(_COLOURS)], each["curve"]
        # A logarithmic axis has no place for no images at all.
        images = [max(1, count) for count in curve["images"]]
        low, high = ([100 * regret for regret in curve[side]] for side in ("low", "high"))
        band = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip", "showlegend": False}
        drawn.add_trace(Scatter(x=images, y=low, legendgroup=name, **band), 1, 1)
        filled = {"fill": "tonexty", "fillcolor": _faint(colour)}
        drawn.add_trace(Scatter(x=images, y=high, legendgroup=name, **band, **filled), 1, 1)
        median = [100 * regret for regret in curve["median"]]
        line = {"color": colour, "shape": "hv"}
        drawn.add_trace(Scatter(x=images, y=median, mode="lines", line=line, name=name, legendgroup=name), 1, 1)
        reached = f"{name}: {len(optima[name])} of {each['seeds']}"
        points = {"boxpoints": "all", "marker": {"color": colour}, "legendgroup": name, "showlegend": False}
        drawn.add_trace(Box(x=optima[name] or [nan], name=reached, **points), 2, 1)
    drawn.update_xaxes(type="log", title="images inferred")
    drawn.update_yaxes(title="regret, % of the optimum's latency", row=1, col=1)
    drawn.update_layout(title=_title(report), template="plotly_white", height=900)
    return drawn


def _names(report: dict[str, Any]) -> list[str]:
    return [each["strategy"] for each in report["strategies"]]


def _images_to_optimum(report: dict[str, Any], strategy: str) -> Iterator[float]:
    for run in report["runs"]:
        if run["strategy"] == strategy and run["images_to_optimum"] is not None:
            yield run["images_to_optimum"]


def _title(report: dict[str, Any]) -> str:
    how = "drawn with replacement" if report["is_resampled"] else "in random order"
    return (
        f"{report['sweep']}: {report['variants']} variants, {report['images']} images {how}, "
        f"{report['budget']['text']}, {report['seeds']} seeds"
    )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {_FAINT})"
