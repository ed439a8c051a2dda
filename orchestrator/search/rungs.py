"""Rungs: on how many images a candidate is looked at, and how sure a look must be to end it."""

from dataclasses import dataclass

from tasks.looks import spent_levels

SMALLEST_SHARE = 1 / 32
"""Share of all images on the first rung, at least: earlier looks save nothing more, since each one makes the others
stricter (docs/uncertainty.md)."""

SMALLEST_IMAGES = 20
"""Images of the first rung, at least: on fewer, AP says next to nothing."""


@dataclass(frozen=True)
class Rung:
    """A look at a candidate."""

    images: int
    """Images scored so far, in the search's order."""

    level: float
    """Two-sided level of the interval: a candidate whose lower end is over the budget ends here."""

    is_last: bool
    """Whether these are all images, so that the loss itself decides."""


def rungs(images: int, error_rate: float, looks_early: bool = True) -> tuple[Rung, ...]:
    """Plans the looks at a candidate: each on twice the images of the one before.

    Args:
        images: All evaluation images.
        error_rate: How often a feasible candidate may be ended wrongly, over all its looks together, in (0, 1).
        looks_early: Whether there are looks before all images.

    Returns:
        The rungs, the last of which is of all images.
    """
    sizes = [images]
    smallest = max(SMALLEST_IMAGES, images * SMALLEST_SHARE)
    while looks_early and -(-sizes[0] // 2) >= smallest:
        sizes.insert(0, -(-sizes[0] // 2))
    levels = spent_levels(sizes[:-1], images, error_rate)
    return tuple(
        Rung(size, level, size == images) for size, level in zip(sizes, (*levels, 1 - error_rate), strict=True)
    )
