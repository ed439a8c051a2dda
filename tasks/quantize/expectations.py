"""Expectations: what each scheme promises to be found in its artifact."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.quantize.schemes import (
    BFloat16,
    DynamicInt4,
    DynamicInt8,
    Float16,
    Float32,
    QatInt4,
    QatInt8,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt4,
    WeightOnlyInt8,
)

FLOAT32_SMALL = "float32_small"
"""Arithmetic of a kernel that was left in float beside dynamic ones since it has few elements."""


@dataclass(frozen=True)
class Expectation:
    """What is found where a scheme is kept."""

    arithmetic: str
    """What every multiply-accumulate computes in, in the words of `Audit.mac_share`."""

    stored: str
    """Element type of the stored weights."""

    excused: tuple[str, ...] = ()
    """Other arithmetics that the toolchain cannot help, which the audit shows."""

    always_symmetric: bool = False
    """Whether the zero point of activations is 0 without an axis that says so."""

    depthwise: "Expectation | None" = None
    """What depthwise convolutions hold, if that differs from the rest."""

    elsewhere: Mapping[str, "Expectation"] = field(default_factory=dict)
    """What toolchains give that differ from this, by name."""

    def of(self, layer: str) -> "Expectation":
        """Returns what a layer holds.

        Args:
            layer: Its canonical name.
        """
        return self.depthwise if self.depthwise and layer.endswith("_depthwise") else self


_EXPECTATIONS: dict[type[Scheme], Expectation] = {
    Float32: Expectation("float32", "float32"),
    Float16: Expectation("float16", "float16", elsewhere={"keras": Expectation("float16", "float32")}),
    BFloat16: Expectation("bfloat16", "float32", elsewhere={"inductor": Expectation("bfloat16", "bfloat16")}),
    DynamicInt8: Expectation(
        "dynamic_int8",
        "int8",
        elsewhere={
            "converter": Expectation("dynamic_int8", "int8", (FLOAT32_SMALL,)),
            "onnxruntime": Expectation("dynamic_int8", "uint8"),
        },
    ),
    # The toolchain has no 4-bit depthwise weights: see `tasks.quantize.recipe`.
    DynamicInt4: Expectation("dynamic_int4", "int4", depthwise=Expectation("dynamic_int8", "int8")),
    WeightOnlyInt8: Expectation("weight_only_int8", "int8"),
    WeightOnlyInt4: Expectation("weight_only_int4", "int4", depthwise=Expectation("weight_only_int8", "int8")),
    StaticInt8: Expectation("int8", "int8"),
    StaticInt4: Expectation("int4x8", "int4", depthwise=Expectation("int8", "int8")),
    StaticInt8x16: Expectation("int8x16", "int8", always_symmetric=True),
    QatInt8: Expectation("int8", "int8"),
    QatInt4: Expectation("int4x8", "int4", depthwise=Expectation("int8", "int8")),
}


def expectation_of(scheme: Scheme) -> Expectation:
    """Finds what a scheme promises.

    Args:
        scheme: How an artifact was to be made.

    Returns:
        What its audit must show.
    """
    usual = _EXPECTATIONS[type(scheme)]
    return usual.elsewhere.get(scheme.toolchain, usual)


def codebook_limit(transform: str) -> int | None:
    """Tells how many distinct weights an output channel may have after a transform.

    Quantization to integers maps equal weights of a channel to equal integers, so that the limit outlives it.

    Args:
        transform: A checked name.

    Returns:
        N for `clustered_N` and `clustered_tfmot_N`, 2 for `binary` (plus and minus one scale), else None: any number.
    """
    clustered = re.fullmatch(r"clustered(?:_tfmot)?_(\d+)", transform)
    if clustered:
        return int(clustered[1])
    return 2 if transform == "binary" else None
