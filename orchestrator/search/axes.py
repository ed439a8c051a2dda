"""Axes: a space of variants as the parameters of an optimizer, exactly and both ways."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.runtimes.base import runtime_of
from tasks.types import Variant

Choice = str | int | float | bool | None
"""A value of an axis; None stands for an axis that does not exist, in a flat encoding."""

Params = Mapping[str, Choice]
"""Values by axis."""

_FIRST = ("runtime", "scheme", "toolchain")


@dataclass(frozen=True)
class _Fork:
    """A place in the tree of a space: the variants under it differ in `axis`, or could."""

    axis: str
    branches: dict[Choice, "_Fork | None"]


class Axes:
    """The axes in which the variants of a space differ, the most important first.

    A variant has a value on the axes that exist for it. In the conditional encoding the others have no place in its
    parameters; in the flat one they are None, for optimizers that model only what all trials have.
    """

    def __init__(self, variants: Iterable[Variant], is_flat: bool = False) -> None:
        """Finds the axes.

        Args:
            variants: Distinct variants, at least one.
            is_flat: Whether every variant has a value on every axis.

        Raises:
            ValueError: If there is no variant, or two have the same axes.
        """
        self.variants = tuple(variants)
        """The space, in order."""
        self.is_flat = is_flat
        """Whether absent axes are None."""
        if not self.variants:
            raise ValueError("there is no variant to search")
        values = [_values(variant) for variant in self.variants]
        choices = {axis: tuple(dict.fromkeys(each[axis] for each in values if axis in each)) for axis in _order(values)}
        varying = {axis: _sorted(found) for axis, found in choices.items() if len(found) > 1}
        absent: tuple[Choice, ...] = (None,)
        self.choices: dict[str, tuple[Choice, ...]] = {
            axis: (absent if is_flat and any(axis not in each for each in values) else ()) + found
            for axis, found in varying.items()
        }
        """Every value of each axis; axes of one value are left out."""
        self._params = {
            variant: {axis: each.get(axis) for axis in self.choices if is_flat or axis in each}
            for variant, each in zip(self.variants, values, strict=True)
        }
        self._variants = {_frozen(params): variant for variant, params in self._params.items()}
        if len(self._variants) != len(self.variants):
            raise ValueError("two variants of the space have the same axes")
        self._tree = _grown(list(self._params.values()), tuple(self.choices))

    def params(self, variant: Variant) -> dict[str, Choice]:
        """Returns the parameters of a variant.

        Raises:
            KeyError: If it is not in the space.
        """
        return dict(self._params[variant])

    def variant(self, params: Params) -> Variant | None:
        """Returns the variant of some parameters, or None if there is none."""
        return self._variants.get(_frozen(params))

    def next(self, params: Params) -> str | None:
        """Says which axis is to be chosen next.

        Args:
            params: What was chosen so far, beginning with no axis and following this method.

        Returns:
            An axis that exists for every variant that has these values; None if no choice is left, or there is no such
            variant.
        """
        fork = self._tree
        while fork is not None and fork.axis in params:
            fork = fork.branches.get(params[fork.axis])
        return fork.axis if fork is not None else None


def _values(variant: Variant) -> dict[str, Choice]:
    axes = variant.scheme.axes()
    settings = variant.settings
    # An option at its default is not written down in the settings, and exists all the same.
    options = {each.name: settings.option(each.name, each.choices[0]) for each in runtime_of(settings.runtime).options}
    first = {"runtime": settings.runtime, "scheme": variant.scheme.name, "toolchain": axes["toolchain"]}
    return {**first, "threads": settings.threads, **options, **axes}


def _order(values: Sequence[Params]) -> list[str]:
    found = list(dict.fromkeys(axis for each in values for axis in each))
    return sorted(found, key=lambda axis: _FIRST.index(axis) if axis in _FIRST else len(_FIRST))


def _sorted(values: tuple[Choice, ...]) -> tuple[Choice, ...]:
    numbers = [value for value in values if isinstance(value, int | float)]
    return tuple(sorted(numbers)) if len(numbers) == len(values) else values


def _frozen(params: Params) -> frozenset[tuple[str, Choice]]:
    return frozenset(params.items())


def _grown(under: list[dict[str, Choice]], axes: tuple[str, ...]) -> _Fork | None:
    """Grows the tree of some variants over the axes that are left.

    An axis that exists for some of them only follows from another one, which then comes first.
    """
    axis = next((axis for axis in axes if all(axis in params for params in under)), None)
    if axis is None:
        return None
    left = tuple(other for other in axes if other != axis)
    groups: dict[Choice, list[dict[str, Choice]]] = {}
    for params in under:
        groups.setdefault(params[axis], []).append(params)
    return _Fork(axis, {value: _grown(group, left) for value, group in groups.items()})
