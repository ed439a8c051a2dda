"""The search space: blocks of a spec multiplied out into variants."""

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from orchestrator.document import Place
from tasks.quantize.builders import Builder, builder_of, builders, refusals
from tasks.quantize.schemes import SCHEMES, Float32, Scheme
from tasks.types import RuntimeSettings, Variant

REFERENCE = Variant(Float32(), RuntimeSettings("litert", threads=1))
"""The LiteRT float32 build on one thread, beside which every variant is measured."""

Broken = tuple[Place, str]
"""Where in `space` a rule is broken, and how."""


@dataclass(frozen=True)
class Space:
    """A fixed list of variants."""

    variants: tuple[Variant, ...]
    """Distinct variants in the order of the spec; the reference is first, then the float32 build of every other
    runtime, named in the spec or not."""

    repeats: dict[str, int]
    """How often the spec asks for a variant beyond the first time, by label, where it does: its lists differ in axes
    that do not exist for it (fixed ranges take no calibration images), or its blocks overlap."""

    @property
    def collapsed(self) -> int:
        """How many variants of the spec were equal to an earlier one."""
        return sum(self.repeats.values())


def expand(blocks: list[Any], threads: list[int]) -> tuple[Space, list[Broken]]:
    """Multiplies out the blocks.

    Args:
        blocks: The `space` of a spec: mappings of an axis to a value or a list of values.
        threads: Thread counts; each makes a variant of its own.

    Returns:
        The space of the blocks without problems, and the broken rules, all of them.
    """
    schemes, broken = expand_schemes(blocks)
    asked = [
        Variant(scheme, RuntimeSettings(builder_of(scheme).runtime, count)) for scheme in schemes for count in threads
    ]
    runtimes = dict.fromkeys(variant.settings.runtime for variant in asked)
    floats = [_float32_of(runtime, threads[0]) for runtime in runtimes if runtime != REFERENCE.settings.runtime]
    repeats = {variant.label: count - 1 for variant, count in Counter(asked).items() if count > 1}
    return Space(tuple(dict.fromkeys([REFERENCE, *floats, *asked])), repeats), broken


def expand_schemes(blocks: list[Any]) -> tuple[list[Scheme], list[Broken]]:
    """Multiplies out the blocks into schemes, repeats included; see `expand`."""
    found: list[Scheme] = []
    broken: list[Broken] = []
    for index, block in enumerate(blocks):
        schemes, problems = _expand_block(block)
        found += schemes
        broken += [((index, *place), message) for place, message in problems]
    return found, broken


def _float32_of(runtime: str, threads: int) -> Variant:
    maker = next(builder for builder in builders() if builder.scheme is Float32 and builder.runtime == runtime)
    return Variant(Float32(toolchain=maker.toolchain), RuntimeSettings(runtime, threads))  # type: ignore[arg-type]


def _expand_block(block: Any) -> tuple[list[Scheme], list[Broken]]:
    if not isinstance(block, dict):
        return [], []
    axes = {str(key): _listed(value) for key, value in block.items()}
    broken: list[Broken] = [
        ((key,), f"`{key}` is an empty list; give at least one value") for key, v in axes.items() if not v
    ]
    broken += [] if "scheme" in axes else [((), f"the block names no scheme; choices: {', '.join(SCHEMES)}")]
    runtimes = sorted({builder.runtime for builder in builders()})
    broken += _unknown(axes, "runtime", runtimes) + _unknown(axes, "scheme", list(SCHEMES))
    if broken:
        return [], broken
    schemes: list[Scheme] = []
    wanted_runtimes = axes.get("runtime", [REFERENCE.settings.runtime])
    for name, runtime in itertools.product(axes["scheme"], wanted_runtimes):
        made, problems = _expand_scheme(SCHEMES[name], runtime, "runtime" in axes, axes)
        schemes += made
        broken += problems
    return schemes, list(dict.fromkeys(broken))


def _expand_scheme(
    scheme: type[Scheme], runtime: str, is_named: bool, axes: dict[str, list[Any]]
) -> tuple[list[Scheme], list[Broken]]:
    own = {field.name: field for field in fields(scheme)}
    given = {key: values for key, values in axes.items() if key not in ("runtime", "scheme")}
    foreign = [key for key in given if key not in own]
    if foreign:
        return [], [((key,), _no_axis(key, scheme, own)) for key in foreign]
    everywhere = [builder for builder in builders() if builder.scheme is scheme]
    makers = {builder.toolchain: builder for builder in everywhere if builder.runtime == runtime or not is_named}
    if not makers:
        runtimes = ", ".join(sorted({builder.runtime for builder in everywhere}))
        return [], [(("runtime",), f"{scheme.name} cannot be made for the runtime {runtime!r}; choices: {runtimes}")]
    broken: list[Broken] = [
        (("toolchain",), f"{scheme.name} cannot be made by the toolchain {value!r}; choices: {', '.join(makers)}")
        for value in given.get("toolchain", [])
        if value not in makers
    ]
    if broken:
        return [], broken
    if "toolchain" not in given and own["toolchain"].default not in makers:
        given["toolchain"] = [next(iter(makers))]
    made: list[Scheme] = []
    for values in itertools.product(*given.values()):
        chosen = dict(zip(given, values, strict=True))
        found, wrong = _one_scheme(scheme, own, makers, chosen)
        made += found
        broken += wrong
    return made, broken


def _one_scheme(
    scheme: type[Scheme], own: dict[str, Any], makers: dict[str, Builder], chosen: dict[str, Any]
) -> tuple[list[Scheme], list[Broken]]:
    wrong = _wrong_types(own, chosen)
    if wrong:
        return [], wrong
    try:
        made = scheme(**chosen)
    except ValueError as error:
        return [], [_broken_value(str(error), chosen)]
    refused = refusals(makers[made.toolchain], made)
    return (
        ([], [((axis,) if axis in chosen else (), message) for axis, message in refused]) if refused else ([made], [])
    )


def _wrong_types(own: dict[str, Any], chosen: dict[str, Any]) -> list[Broken]:
    broken: list[Broken] = []
    for key, value in chosen.items():
        default = own[key].default
        wanted = type(default) if default is not MISSING else type(value)
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


def _no_axis(key: str, scheme: type[Scheme], own: dict[str, Any]) -> str:
    everywhere = {field.name for other in SCHEMES.values() for field in fields(other)}
    known = f"{scheme.name} has no axis `{key}`" if key in everywhere else f"unknown axis `{key}`{_nearest(key, own)}"
    return f"{known}; axes of {scheme.name}: {', '.join(own)}"


def _nearest(value: Any, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(value), list(choices), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
