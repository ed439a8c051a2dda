"""Blocks: one mapping of axes to values in the `space` of a spec, multiplied out."""

import difflib
import itertools
import math
from collections.abc import Iterable
from dataclasses import Field, dataclass, fields
from functools import cache
from importlib import metadata
from typing import Any

from orchestrator.document import Place
from tasks.quantize.artifact import toolchain_packages
from tasks.quantize.builders import Builder, builders, refusals, why_not
from tasks.quantize.schemes import SCHEMES, TOOLCHAINS_WITH, Scheme
from tasks.runtimes.base import Option, runtime_of, runtimes
from tasks.types import RuntimeSettings, Variant

DEFAULT_RUNTIME = "litert"
"""The runtime of a block that names none and whose toolchain says nothing else."""

Broken = tuple[Place, str]
"""Where in `space` a rule is broken, and how."""

_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Asked:
    """What one combination of a block's values asks for."""

    scheme: Scheme
    """How the artifact is made."""

    runtime: str
    """What runs it."""

    options: dict[str, str]
    """The runtime's own options that the block names."""

    def variant(self, threads: int) -> Variant:
        """Returns it with a number of threads."""
        return Variant(self.scheme, runtime_of(self.runtime).settings(threads, **self.options))

    def settings(self) -> RuntimeSettings:
        """Returns how it is run, on one thread."""
        return self.variant(1).settings


def expand_block(block: Any) -> tuple[list[Asked], list[Broken]]:
    """Multiplies out a block.

    Args:
        block: A mapping of an axis, `scheme`, `runtime` or an option of a runtime to a value or a list of values. What
            is no mapping gives nothing; the spec's own check refuses it.

    Returns:
        What it asks for, in order, repeats included, and the broken rules, all of them.
    """
    if not isinstance(block, dict):
        return [], []
    axes = {str(key): _listed(value) for key, value in block.items()}
    broken = _broken_keys(axes)
    if broken:
        return [], broken
    asked: list[Asked] = []
    for name, runtime in itertools.product(axes["scheme"], axes.get("runtime", [None])):
        found, problems = _expand_scheme(SCHEMES[name], runtime, axes)
        asked += found
        broken += problems
    broken += _useless(axes, asked) if not broken else []
    return asked, list(dict.fromkeys(broken))


def missing_packages(scheme: Scheme, runtime: str) -> list[str]:
    """Lists the distributions that making and running a scheme takes and that are not installed."""
    wanted = {*runtime_of(runtime).packages, *toolchain_packages(scheme)}
    return sorted(package for package in wanted if not is_installed(package))


@cache
def is_installed(package: str) -> bool:
    """Says whether a distribution is installed."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _broken_keys(axes: dict[str, list[Any]]) -> list[Broken]:
    broken: list[Broken] = [
        ((key,), f"`{key}` is an empty list; give at least one value") for key, v in axes.items() if not v
    ]
    broken += [] if "scheme" in axes else [((), f"the block names no scheme; choices: {', '.join(SCHEMES)}")]
    broken += _unknown(axes, "runtime", sorted({runtime.name for runtime in runtimes()}))
    return broken + _unknown(axes, "scheme", list(SCHEMES))


def _expand_scheme(
    scheme: type[Scheme], runtime: str | None, axes: dict[str, list[Any]]
) -> tuple[list[Asked], list[Broken]]:
    own = {field.name: field for field in fields(scheme)}
    options = _options_of([runtime] if runtime else None)
    given = {key: values for key, values in axes.items() if key in own}
    foreign = [key for key in axes if key not in (*own, *_options_of(axes.get("runtime")), "runtime", "scheme")]
    if foreign:
        return [], [((key,), _no_axis(key, scheme, own, runtime)) for key in foreign]
    everywhere = [builder for builder in builders() if builder.scheme is scheme]
    makers = {builder.toolchain: builder for builder in everywhere if runtime is None or runtime in builder.runtimes}
    if not makers:
        choices = ", ".join(sorted({name for builder in everywhere for name in builder.runtimes}))
        reason = why_not(scheme, runtime or "")
        message = f"{scheme.name} cannot be made for the runtime {runtime!r}{reason}; choices: {choices}"
        return [], [(("runtime",), message)]
    broken: list[Broken] = [
        (
            ("toolchain",),
            f"{scheme.name} cannot be made by the toolchain {value!r}{why_not(scheme, str(value))}; "
            f"choices: {', '.join(makers)}",
        )
        for value in given.get("toolchain", [])
        if value not in makers
    ]
    if broken:
        return [], broken
    if "toolchain" not in given and own["toolchain"].default not in makers:
        given["toolchain"] = [next(iter(makers))]
    asked: list[Asked] = []
    chosen_options = {key: values for key, values in axes.items() if key in options}
    for values in itertools.product(*given.values()):
        made, wrong = _one_scheme(own, makers, scheme, dict(zip(given, values, strict=True)))
        broken += wrong
        if made is None:
            continue
        for picked in itertools.product(*chosen_options.values()):
            one = Asked(
                made, runtime or makers[made.toolchain].runtimes[0], dict(zip(chosen_options, picked, strict=True))
            )  # fmt: skip
            wrong = _broken_settings(one)
            broken += wrong
            asked += [] if wrong else [one]
    return asked, broken


def _one_scheme(
    own: dict[str, Field[Any]], makers: dict[str, Builder], scheme: type[Scheme], given: dict[str, Any]
) -> tuple[Scheme | None, list[Broken]]:
    chosen = {key: _number(own[key], value) for key, value in given.items()}
    wrong = _wrong_types(own, chosen)
    if wrong:
        return None, wrong
    maker = makers.get(chosen.get("toolchain", own["toolchain"].default))
    try:
        made = scheme(**{**(maker.forced if maker else {}), **chosen})
    except ValueError as error:
        return None, [_broken_value(str(error), chosen)]
    refused = refusals(makers[made.toolchain], made)
    return (
        (None, [((axis,) if axis in chosen else (), message) for axis, message in refused]) if refused else (made, [])
    )


def _broken_settings(asked: Asked) -> list[Broken]:
    missing = missing_packages(asked.scheme, asked.runtime)
    if missing:
        extra = runtime_of(asked.runtime).extra
        install = f"pip install 'quantsweep[{extra}]'" if extra else "pip install quantsweep"
        message = f"the runtime {asked.runtime} needs {', '.join(missing)}, not installed here: {install}"
        return [(("runtime",), message)]
    try:
        asked.settings()
    except ValueError as error:
        return [_broken_value(str(error), asked.options)]
    return []


def _useless(axes: dict[str, list[Any]], asked: list[Asked]) -> list[Broken]:
    """Axes and options that belong to none of the toolchains and runtimes of the block."""
    known = {key for each in asked for key in (*each.scheme.axes(), *each.options)} | {"scheme", "runtime"}
    toolchains = ", ".join(dict.fromkeys(each.scheme.toolchain for each in asked))
    kinds = ", ".join(dict.fromkeys(each.scheme.name for each in asked))
    return [
        ((key,), f"`{key}` exists for nothing that the block asks for: {kinds} of the toolchain {toolchains}")
        for key in axes
        if asked and key not in known and (key in TOOLCHAINS_WITH or key in _options_of(None))
    ]


def _options_of(names: list[Any] | None) -> dict[str, Option]:
    found = runtimes() if names is None else [runtime_of(name) for name in names]
    return {option.name: option for runtime in found for option in runtime.options}


def _number(field: Field[Any], value: Any) -> Any:
    """A whole number is a number, too; one that no number can hold is infinite."""
    if type(value) is not int or type(field.default) is not float:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _wrong_types(own: dict[str, Field[Any]], chosen: dict[str, Any]) -> list[Broken]:
    broken: list[Broken] = []
    for key, value in chosen.items():
        wanted = type(own[key].default)
        if type(value) is not wanted:
            broken.append(((key,), f"`{key}` is {value!r}; it must be {_TYPE_NAMES.get(wanted, wanted.__name__)}"))
    return broken


def _broken_value(message: str, chosen: dict[str, Any]) -> Broken:
    axis = message.split(" ", 1)[0]
    return ((axis,) if axis in chosen else ()), message


def _unknown(axes: dict[str, list[Any]], axis: str, choices: list[str]) -> list[Broken]:
    return [
        ((axis,), f"unknown {axis} {value!r}{_nearest(value, choices)}; choices: {', '.join(choices)}")
        for value in axes.get(axis, [])
        if value not in choices
    ]


def _no_axis(key: str, scheme: type[Scheme], own: dict[str, Any], runtime: str | None) -> str:
    owners = [each.name for each in runtimes() if key in {option.name for option in each.options}]
    if owners:
        return f"the runtime {runtime} has no option `{key}`; runtimes that have it: {', '.join(owners)}"
    everywhere = {field.name for other in SCHEMES.values() for field in fields(other)}
    options = _options_of([runtime] if runtime else None)
    known = (
        f"{scheme.name} has no axis `{key}`"
        if key in everywhere
        else f"unknown axis `{key}`{_nearest(key, (*own, *options))}"
    )
    return f"{known}; axes of {scheme.name}: {', '.join(own)}"


def _nearest(value: Any, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
