"""Promise: whether a training is worth going on with, by its learning curve and those of others."""

from collections.abc import Iterable
from statistics import median

from tasks.types import TrainingProgress

DIVERGED = 2.0
"""A held-out loss so many times the first one is on no way back."""

LEAST_DIVERGED = 1.0
"""First losses below count as this. Losses are per object: where rounding costs next to nothing (int8, distilled), the
first is near 0, and a rate at its peak doubles it on the way to something better."""

DIVERGES_FROM = 1 / 8
"""Share of the updates from which on a training may be found to diverge."""

JUDGED_ALONE_FROM = 3 / 4
"""Share of the updates from which on a training must have been better than untrained weights once: the rate has come
down to .15 of its peak there."""

COMPARED_FROM = 1 / 4
"""Share of the updates from which on a training is compared with others."""

FEWEST_OTHERS = 3
"""Others that it takes for a comparison."""


def why_unpromising(progress: TrainingProgress, others: Iterable[TrainingProgress] = ()) -> str | None:
    """Says why a training should be ended.

    The rule against others is the median rule of Google Vizier (Golovin et al. 2017, section 3.2.2): the best loss so
    far is worse than the median of what the others had at the same share of their updates.

    Args:
        progress: A training at a point of its learning curve.
        others: Trainings for the same structure, on the same images, of the same loss, however far they are.

    Returns:
        The reason, or None if it may go on.
    """
    if progress.is_over or not progress.step:
        return None
    share, first, best = progress.step / progress.steps, progress.points[0].held_out_loss, progress.best.held_out_loss
    now = progress.points[-1].held_out_loss
    if share >= DIVERGES_FROM and now > DIVERGED * max(first, LEAST_DIVERGED):
        return f"it diverges: its held-out loss is {now:.3f} after {share:.0%} of its updates, and was {first:.3f}"
    if share >= JUDGED_ALONE_FROM and progress.best_step == 0:
        return f"in {share:.0%} of its updates its held-out loss was never below the {first:.3f} of untrained weights"
    theirs = [loss for loss in (_best_until(other, share) for other in others) if loss is not None]
    if share >= COMPARED_FROM and len(theirs) >= FEWEST_OTHERS and best > median(theirs):
        return (
            f"its held-out loss, {best:.3f} after {share:.0%} of its updates, is above the median of {len(theirs)} "
            f"other trainings, {median(theirs):.3f}"
        )
    return None


def _best_until(progress: TrainingProgress, share: float) -> float | None:
    """The lowest held-out loss up to a share of the updates; None for a training that has not come so far."""
    if progress.step < share * progress.steps:
        return None
    return min(point.held_out_loss for point in progress.points if point.step <= share * progress.steps)
