"""Looks: how sure each of several looks at the same growing evidence must be, so that all together rarely err."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

FEW_IMAGES = 20
"""Images on which the interval of the paired bootstrap is too narrow by a factor of the square root of 2: with few,
most classes are in one or two images, so that resamples do not show how much their AP varies. Measured: see
docs/uncertainty.md."""


def spent_levels(sizes: Sequence[int], images: int, error_rate: float) -> tuple[float, ...]:
    """Spreads an error rate over looks at a variant that is ended if its loss is surely over the budget.

    An error is to end a variant whose loss on all images is within the budget. Three corrections make the two-sided
    level of each look:

    - Bonferroni's: with k looks, each may err in a share `error_rate` / k of cases, to one side: z standard deviations.
    - For a finite population: a look at n of N images, in a random order, says less wrong things about these N than
      about all that could be collected: its standard error is sqrt(1 - n / N) of the latter's (Cochran, "Sampling
      Techniques" (1977), section 2.6), which is what the bootstrap estimates.
    - For few images: the bootstrap's standard error is too small by about sqrt(1 + `FEW_IMAGES` / n).

    A level of the bootstrap's interval whose half-width is z * sqrt((1 - n / N) * (1 + `FEW_IMAGES` / n)) of its
    standard errors takes account of all three.

    Args:
        sizes: Images at each look before the last one, which is of all images; each in (0, `images`).
        images: All images, N.
        error_rate: How often a variant within the budget may be ended wrongly over all looks together, in (0, 0.5).

    Returns:
        Two-sided level of the interval at each look, in (0, 1).

    Raises:
        ValueError: If a size or the error rate is out of range.
    """
    if not 0 < error_rate < 0.5 or any(not 0 < size < images for size in sizes):
        raise ValueError(f"looks at {tuple(sizes)} of {images} images may not err in a share of {error_rate:g}")
    normal = NormalDist()
    z = normal.inv_cdf(1 - error_rate / max(1, len(sizes)))
    factors = (sqrt((1 - size / images) * (1 + FEW_IMAGES / size)) for size in sizes)
    return tuple(2 * normal.cdf(z * factor) - 1 for factor in factors)
