"""Looks: how sure each of several looks at the same growing evidence must be, so that all together rarely err."""


def spent_levels(shares: tuple[float, ...], error_rate: float) -> tuple[float, ...]:
    """Spreads an error rate over looks.

    Args:
        shares: Share of the images at each look before the last one, rising, in (0, 1).
        error_rate: How often a feasible variant may be ended wrongly over all looks together, in (0, 1).

    Returns:
        Two-sided level of the interval at each look.
    """
    return tuple(1 - error_rate for _ in shares)
