"""What oneDNN says of itself: the lines that it prints for each primitive that it executes, with its time.

Source of the format: oneDNN's documentation, "Verbose Mode" (ONEDNN_VERBOSE=profile_exec):
`onednn_verbose,v1,primitive,exec,ENGINE,PRIMITIVE,IMPLEMENTATION,PROP_KIND,MEMORY,ATTRIBUTES,AUXILIARY,PROBLEM,MS`.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.errors import InferenceFailed

_FIELDS = 13
_EXECUTION = ("onednn_verbose", "v1", "primitive", "exec")
_SIZE = re.compile(r"(ic|oc|oh|ow|kh|kw|g)(\d+)")
_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "s8": "int8", "u8": "uint8", "s32": "int32"}
"""Words of `Audit` by oneDNN's."""

_STANDARD_OUTPUT = 1


@dataclass(frozen=True)
class Primitive:
    """One execution of a primitive."""

    kind: str
    """`convolution`, `reorder`, ..."""

    implementation: str
    """Such as `brgconv_1x1:avx10_1_512_amx`."""

    types: dict[str, str]
    """Element types by role: `src`, `wei`, `bia`, `dst`."""

    problem: str
    """Its sizes: `g24mb1_ic24oc24_ih150oh150kh3sh1dh0ph1_iw150ow150kw3sw1dw0pw1`, or those of a tensor."""

    time_ms: float
    """Time that it took."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution of one image; 0 if it is none."""
        # Each weight is used once at each place of the output, grouped or not.
        return self.elements * self._sizes["oh"] * self._sizes["ow"] if self.elements else 0

    @property
    def elements(self) -> int:
        """Number of weights of a convolution; 0 if it is none."""
        sizes = self._sizes
        if self.kind != "convolution" or not {"ic", "oc", "oh", "ow", "kh", "kw"} <= sizes.keys():
            return 0
        return sizes["oc"] * sizes["ic"] // sizes.get("g", 1) * sizes["kh"] * sizes["kw"]

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: int(value) for name, value in _SIZE.findall(self.problem)}

    def is_again(self, other: "Primitive") -> bool:
        """Whether it is the same primitive at another time."""
        return (self.kind, self.implementation, self.problem) == (other.kind, other.implementation, other.problem)


def primitives(text: str) -> list[Primitive]:
    """Reads what oneDNN printed.

    Args:
        text: Lines of the standard output; others may stand between oneDNN's.

    Returns:
        The executions, in order.
    """
    return [_primitive(fields) for line in text.splitlines() if _is_execution(fields := line.split(","))]


@contextlib.contextmanager
def watched() -> Iterator[list[Primitive]]:
    """Makes oneDNN tell of each primitive that torch lets it execute in this process.

    What is printed to the standard output meanwhile, by whomever, goes no further.

    Yields:
        A list that holds the primitives once the context has been left.

    Raises:
        InferenceFailed: If torch has no oneDNN, or one that cannot tell.
    """
    import torch

    found: list[Primitive] = []
    with tempfile.TemporaryFile() as printed:
        sys.stdout.flush()
        kept = os.dup(_STANDARD_OUTPUT)
        os.dup2(printed.fileno(), _STANDARD_OUTPUT)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                yield found
        except AssertionError as error:
            raise InferenceFailed("this torch has no oneDNN that tells the times of its kernels") from error
        finally:
            sys.stdout.flush()
            os.dup2(kept, _STANDARD_OUTPUT)
            os.close(kept)
        printed.seek(0)
        found += primitives(printed.read().decode(errors="replace"))


def _is_execution(fields: list[str]) -> bool:
    return len(fields) == _FIELDS and tuple(fields[:4]) == _EXECUTION


def _primitive(fields: list[str]) -> Primitive:
    memory = (item.split(":") for item in fields[8].split())
    return Primitive(
        kind=fields[5],
        implementation=fields[6],
        types={item[0]: _TYPES.get(item[1], item[1]) for item in memory if len(item) > 1},
        problem=fields[11],
        time_ms=float(fields[12]),
    )
