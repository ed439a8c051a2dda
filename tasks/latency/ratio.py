"""How much longer one artifact takes than another, with an interval, from rounds of pairs."""

import math
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Nominal coverage of the interval, when measuring ends by its width."""

Round = tuple[tuple[float, float], ...]
"""(time of the first, time of the second) of each pair of one round, in any unit."""


@dataclass(frozen=True)
class Ratio:
    """Time of the second artifact / time of the first."""

    ratio: float
    """Estimate."""

    low: float
    high: float
    """Ends of the interval."""

    @property
    def half_width(self) -> float:
        """Half the width of the interval, as a share of the ratio; infinite if there is none."""
        return (self.high - self.low) / 2 / self.ratio


def ratio_of(rounds: tuple[Round, ...]) -> Ratio:
    """Estimates a ratio of times and its interval.

    Each round is a pair of fresh processes. Where the loader happens to put code and stack makes one process of the
    same artifact faster than another by a percent or so, as long as it lives (Mytkowicz et al. 2009, "Producing wrong
    data without doing anything obviously wrong!"). Resampling the pairs of one process knows nothing of that, so rounds
    are what is counted: the median of the log ratios of each round's pairs, and Student's interval of their mean
    (Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time", at the level of executions).

    Args:
        rounds: At least one, each of at least one pair.

    Returns:
        The geometric mean of the rounds' median ratios with its 95 % interval; the latter unbounded for one round.
    """
    medians = np.array([np.median([math.log(second / first) for first, second in each]) for each in rounds])
    center, count = float(medians.mean()), len(medians)
    if count < 2:
        return Ratio(math.exp(center), 0.0, math.inf)
    half = _t_quantile(count - 1) * float(medians.std(ddof=1)) / math.sqrt(count)
    return Ratio(math.exp(center), math.exp(center - half), math.exp(center + half))


QUANTILE = 0.98
"""Of Student's t, on either side. Measuring ends as soon as the interval is narrow enough, which favours those that are
too narrow by chance: with the quantile .975, 93 to 93.5 % of the intervals would hold the truth (simulated: 6 to 14
rounds, standard deviation of a round 1.4 to 2 %). With this one 94.4 to 94.7 % do."""

_T_QUANTILES = (15.8945, 4.8487, 3.4819, 2.9985, 2.7565, 2.6122, 2.5168, 2.4490, 2.3984, 2.3593)
"""By degrees of freedom, from 1."""

_Z = 2.0537489
"""The normal distribution's."""


def _t_quantile(freedom: int) -> float:
    if freedom <= len(_T_QUANTILES):
        return _T_QUANTILES[freedom - 1]
    # Cornish and Fisher's expansion, right to 1e-4 from 11 degrees on (Abramowitz and Stegun 1964, 26.7.5).
    first = (_Z**3 + _Z) / (4 * freedom)
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / (384 * freedom**3)
    return _Z + first + second + third
