"""Support: which combinations of values cannot be had, learned from what failed."""

from collections import Counter
from itertools import combinations

from orchestrator.search.axes import Choice, Params

_Pair = tuple[tuple[str, Choice], tuple[str, Choice]]


class Support:
    """Finds the pairs of values to blame for what is unsupported.

    Toolchains refuse pairs of values (this granularity with that estimator) far more often than single values or
    triples, and an optimizer that models latency under a budget is slow to find out which.
    """

    def __init__(self) -> None:
        """Knows nothing."""
        self._worked: set[_Pair] = set()
        self._failed: list[list[_Pair]] = []
        self._blame: dict[_Pair, float] = {}

    def learn(self, params: Params, is_supported: bool) -> None:
        """Takes note of a variant that was tried.

        Args:
            params: Its values.
            is_supported: Whether it could be made and scored, at least in principle.
        """
        if is_supported:
            self._worked.update(_pairs(params))
        else:
            self._failed.append(_pairs(params))
        self._blame = self._blamed()

    def chance(self, params: Params) -> float:
        """Says how likely it is that a variant is supported.

        Args:
            params: Its values.

        Returns:
            2^-n, where n is the blame on its worst pair of values: by Bayes' rule, if pairs that do work are half of
            the time in something that fails for another reason. 1 if there is nothing against it.
        """
        return 0.5 ** max((self._blame.get(pair, 0.0) for pair in _pairs(params)), default=0.0)

    def _blamed(self) -> dict[_Pair, float]:
        """Puts each failure down to that of its pairs which failed most often and never worked, in equal parts."""
        failures = Counter(pair for pairs in self._failed for pair in pairs if pair not in self._worked)
        blame: dict[_Pair, float] = {}
        for pairs in self._failed:
            most = max((failures[pair] for pair in pairs), default=0)
            worst = [pair for pair in pairs if failures[pair] == most] if most else []
            for pair in worst:
                blame[pair] = blame.get(pair, 0.0) + 1 / len(worst)
        return blame


def _pairs(params: Params) -> list[_Pair]:
    return list(combinations(sorted(params.items(), key=lambda item: item[0]), 2))
