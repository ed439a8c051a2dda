"""Kept layers: which layers a mixed-precision scheme leaves in float."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

NONE = "none"
"""Nothing is kept in float."""

_RANKED = re.compile(r"most_sensitive_([1-9]\d*)")


def check_keep_float(value: str) -> None:
    """Checks the form of a `keep_float` axis.

    Args:
        value: `none`, layer names or shell patterns joined by `|`, or `most_sensitive_N`.

    Raises:
        ValueError: If it has none of these forms.
    """
    wrong_number = value.startswith("most_sensitive") and not _RANKED.fullmatch(value)
    if wrong_number or not re.fullmatch(r"[\w*?\[\]!-]+(\|[\w*?\[\]!-]+)*", value):
        raise ValueError(
            f"keep_float is {value!r}; choices: none, most_sensitive_N (N from 1), or layer names and patterns joined "
            "by |, such as Conv2d_0|BoxPredictor_*"
        )


def is_ranked(value: str) -> bool:
    """Says whether a checked value asks for the most sensitive layers."""
    return _RANKED.fullmatch(value) is not None


def kept_layers(value: str, names: Sequence[str], ranking: Sequence[str] = ()) -> tuple[str, ...]:
    """Lists the layers that a value keeps in float.

    Args:
        value: A checked `keep_float` axis.
        names: Names of the detector's layers, in order.
        ranking: The same names, the most sensitive first; used for `most_sensitive_N` alone.

    Returns:
        Names, in the order of `names`.

    Raises:
        ValueError: If a pattern matches no layer, N is the number of layers or more, or all layers would be kept.
    """
    ranked = _RANKED.fullmatch(value)
    if value == NONE:
        return ()
    if ranked:
        if int(ranked[1]) >= len(names):
            raise ValueError(f"keep_float is {value!r}; the detector has {len(names)} layers")
        chosen = set(ranking[: int(ranked[1])])
        return tuple(name for name in names if name in chosen)
    patterns = value.split("|")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"keep_float {pattern!r} matches no layer; layers: {', '.join(names)}")
    kept = tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    if len(kept) == len(names):
        raise ValueError(f"keep_float {value!r} matches every layer: nothing would be quantized")
    return kept
