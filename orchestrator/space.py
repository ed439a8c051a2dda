"""The search space: blocks of a spec multiplied out into variants."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.block import DEFAULT_RUNTIME, Asked, Broken, expand_block
from tasks.quantize.builders import builders
from tasks.quantize.schemes import Float32, Qat
from tasks.types import RuntimeSettings, Variant

REFERENCE = Variant(Float32(), RuntimeSettings(DEFAULT_RUNTIME, threads=1))
"""The LiteRT float32 build on one thread, beside which every variant is measured."""


@dataclass(frozen=True)
class Space:
    """A fixed list of variants."""

    variants: tuple[Variant, ...]
    """Distinct variants in the order of the spec; the reference is first, then the float32 build of every other
    runtime, named in the spec or not. Before a trained variant stands its untrained twin: what training gains is the
    difference between the two."""

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
    found, broken = expand_blocks(blocks)
    asked = [each.variant(count) for each in found for count in threads]
    runtimes = dict.fromkeys(variant.settings.runtime for variant in asked)
    floats = [_float32_of(runtime, threads[0]) for runtime in runtimes if runtime != DEFAULT_RUNTIME]
    repeats = {variant.label: count - 1 for variant, count in Counter(asked).items() if count > 1}
    with_twins = [each for variant in asked for each in (*_untrained(variant), variant)]
    return Space(tuple(dict.fromkeys([REFERENCE, *floats, *with_twins])), repeats), broken


def expand_blocks(blocks: list[Any]) -> tuple[list[Asked], list[Broken]]:
    """Multiplies out the blocks without thread counts, repeats included; see `expand`."""
    found: list[Asked] = []
    broken: list[Broken] = []
    for index, block in enumerate(blocks):
        asked, problems = expand_block(block)
        found += asked
        broken += [((index, *place), message) for place, message in problems]
    return found, broken


def _untrained(variant: Variant) -> list[Variant]:
    scheme = variant.scheme
    return [replace(variant, scheme=scheme.untrained)] if isinstance(scheme, Qat) and scheme.is_trained else []


def _float32_of(runtime: str, threads: int) -> Variant:
    maker = next(builder for builder in builders() if builder.scheme is Float32 and runtime in builder.runtimes)
    return Variant(Float32(toolchain=maker.toolchain), RuntimeSettings(runtime, threads))  # type: ignore[arg-type]
