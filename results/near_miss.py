"""Near misses: variants over the budget, by how much, and what each would need to be within it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_STEPS = 10_000
"""A budget that is proposed is rounded up to one part in so many: rounded down, the variant would miss it again."""

_EXACT = 1e-8
"""Share of such a part that a float may be off: what the views take for equal."""


@dataclass(frozen=True)
class NearMiss:
    """What is known of the loss of a variant that is not within the budget."""

    loss: float
    """Loss of the budget's metric, as the budget counts it."""

    low: float | None
    high: float | None
    """Its interval, if one was computed."""

    level: float | None
    """Nominal coverage of the interval, in (0, 1)."""

    images: int
    """Images that it was scored on."""

    all_images: int
    """Images of the whole evaluation."""

    limit: float
    """The budget."""

    metric: str
    """Its metric, as a person writes it: `AP`."""

    is_relative: bool
    """Whether losses are shares of the reference's value."""

    @property
    def is_partial(self) -> bool:
        """Whether it was scored on some of the images only."""
        return self.images < self.all_images

    @property
    def excess(self) -> float:
        """Loss above the budget; at most 0 if the images scored so far do not show one."""
        return self.loss - self.limit

    @property
    def needs(self) -> str:
        """Says what it would need to be within the budget, or to be known to be."""
        if self.excess <= 0:
            rest = f"the other {self.all_images - self.images} images"
            scored = f"on {self.images} of {self.all_images} it loses {self._amount(self.loss)}{self._interval}"
            return f"{rest}: {scored}, and the budget is {self._limit}"
        of = f" of the reference's {self.metric}" if self.is_relative else ""
        if self.is_partial:
            scored = f", judged by {self.images} of {self.all_images} images"
            return f"a budget of about {self._enough} instead of {self._limit}{of}{scored}{self._interval}"
        return f"a budget of {self._enough} instead of {self._limit}{of}{self._interval}"

    @property
    def _enough(self) -> str:
        return self._amount(math.ceil(self.loss * _STEPS - _EXACT) / _STEPS)

    @property
    def _limit(self) -> str:
        return f"{100 * self.limit:g} %" if self.is_relative else f"{self.limit:g}"

    @property
    def _interval(self) -> str:
        if self.low is None or self.high is None or self.level is None:
            return ""
        return f" ({self._amount(self.low)} to {self._amount(self.high)} with {100 * self.level:.4g} %)"

    def _amount(self, loss: float) -> str:
        # Adding 0 makes a plain zero of the negative one that a small negative number is rounded to.
        rounded = round(loss, 4) + 0.0
        return f"{100 * rounded:.2f} %" if self.is_relative else f"{rounded:.4f}"


def near_miss(
    row: Mapping[str, Any], sweep: Mapping[str, Any], verdict_level: float | None, ap_level: float | None
) -> NearMiss | None:
    """Reads a row of the leaderboard as a near miss.

    Args:
        row: A row of the view `leaderboard`.
        sweep: Its sweep, as `results.queries.find_sweep` finds it.
        verdict_level: Nominal coverage of the interval of the row's verdict; None if it has none.
        ap_level: Nominal coverage of the interval of its AP loss on every image; None if it has none.

    Returns:
        The near miss. None if there is no budget; for the reference and what is within the budget; and for what has no
        loss or no latency that can be trusted.
    """
    if sweep["budget_metric"] is None or row["status"] not in ("done", "stopped"):
        return None
    if row["is_reference"] or row["feasible"] or row["latency_noisy"] or row["latency_ratio"] is None:
        return None
    is_scored = row["budget_loss"] is not None
    images, loss = (row["images"], row["budget_loss"]) if is_scored else (row["verdict_images"], row["verdict_loss"])
    if loss is None:
        return None
    low = high = level = None
    if row["verdict_loss_low"] is not None and row["verdict_images"] == images:
        low, high, level = row["verdict_loss_low"], row["verdict_loss_high"], verdict_level
    elif is_scored and sweep["budget_metric"] == "ap" and not sweep["budget_relative"]:
        low, high, level = row["ap_loss_low"], row["ap_loss_high"], ap_level
    limit, is_relative = sweep["budget_max_loss"], sweep["budget_relative"]
    return NearMiss(loss, low, high, level, images, sweep["images"], limit, _name(sweep["budget_metric"]), is_relative)


def _name(metric: str) -> str:
    return metric[:2].upper() + metric[2:].replace("_", " ")
