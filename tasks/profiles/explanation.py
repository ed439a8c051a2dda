"""Explanations: why an integer variant is not faster than float32 of the same runtime, in one line."""

from collections.abc import Callable, Iterator

from tasks.types import Audit, OperatorTime, Profile

NOT_FASTER = 0.95
"""A variant is called faster where its time is at most this share of float32's: less is hardly worth a change of
detections."""

WORTH_NAMING = 0.05
"""Shares of the time or of the multiply-accumulates below this explain nothing."""

_DOT_PRODUCTS = {
    "avx": ("avx512_vnni", "avx_vnni", "amx_int8"),
    "asimd": ("asimddp", "i8mm"),
}
"""Instructions that multiply and sum 8-bit integers, by the feature that tells the architecture, in the words of
`tasks.host.ISA_FLAGS`."""

_NAMES = {"avx": "VNNI or AMX", "asimd": "dot-product or i8mm"}

_FLOATS = ("float", "bfloat")


def explanation(
    ratio: float,
    float_ratio: float,
    audit: Audit,
    executed_mac_share: dict[str, float] | None,
    isa: tuple[str, ...],
    runtime: str,
    profile: Profile | None,
) -> str | None:
    """Says why an integer variant is not faster than float32 of the same runtime on the same host.

    Args:
        ratio: The variant's time / the reference's time.
        float_ratio: The time of the runtime's float32 / the reference's time, at the same number of threads.
        audit: What the variant's artifact holds.
        executed_mac_share: As `Latency.executed_mac_share`.
        isa: The host's instructions, in the words of `tasks.host.ISA_FLAGS`.
        runtime: Identifier of the runtime.
        profile: Where the variant's time goes, if it is known.

    Returns:
        One line with the reasons that were found, the weightiest kind first; None if the variant is faster, or stores
        no integers.
    """
    if not any(_is_integer(word) for word in audit.mac_share) or ratio <= NOT_FASTER * float_ratio:
        return None
    found = [
        *_reference_kernels(audit, runtime, profile),
        *_run_in_float(audit, executed_mac_share, profile),
        *_conversions(profile),
        *_no_dot_product(executed_mac_share or audit.mac_share, isa),
        *_weights_only(audit),
        *_not_delegated(audit, runtime, profile),
        *_dynamic(audit),
        *_left_in_float(audit),
    ]
    start = f"not faster than float32 on {runtime} ({ratio / float_ratio:.2f} times its time): "
    return start + ("; ".join(found) or f"no reason found: {_what_is_known(audit, profile)}")


def _reference_kernels(audit: Audit, runtime: str, profile: Profile | None) -> Iterator[str]:
    if profile:
        share = profile.share(_is_reference)
        if share >= WORTH_NAMING:
            words = _words(profile, _is_reference)
            yield f"{_percent(share)} of the time is in reference kernels, written to be read, not to be fast ({words})"
        return
    # LiteRT has optimized kernels for 8-bit activations only: see tasks.profiles.litert_operators.
    share = _sum(audit.mac_share, _has_wide_activations)
    if runtime == "litert" and share >= WORTH_NAMING:
        yield (
            f"{_percent(share)} of its multiply-accumulates have 16-bit activations, for which LiteRT has reference"
            " kernels only, written to be read, not to be fast"
        )


def _run_in_float(audit: Audit, executed_mac_share: dict[str, float] | None, profile: Profile | None) -> Iterator[str]:
    if executed_mac_share is not None:
        stored = _sum(audit.mac_share, lambda word: _is_float(word) or _is_weight_only(word))
        share = _sum(executed_mac_share, _is_float) - stored
        if share >= WORTH_NAMING:
            words = ", ".join(word for word in executed_mac_share if _is_float(word))
            yield f"{_percent(share)} of its multiply-accumulates are stored as integers and executed in {words}"
    elif profile:
        share = profile.share(_is_float_fallback)
        if share >= WORTH_NAMING:
            yield f"{_percent(share)} of the time is in operators that are stored as integers and executed in float"


def _conversions(profile: Profile | None) -> Iterator[str]:
    if profile and profile.conversion_share >= WORTH_NAMING:
        kinds = _words(profile, lambda item: item.role == "conversion", lambda item: item.operator)
        yield f"{_percent(profile.conversion_share)} of the time is in conversions of type or layout ({kinds})"


def _no_dot_product(mac_share: dict[str, float], isa: tuple[str, ...]) -> Iterator[str]:
    share = _sum(mac_share, _multiplies_bytes)
    if share < WORTH_NAMING:
        return
    for architecture, instructions in _DOT_PRODUCTS.items():
        if architecture in isa and not set(instructions) & set(isa):
            yield (
                f"this CPU has no {_NAMES[architecture]} instructions ({', '.join(instructions)}), without which"
                f" 8-bit integers are multiplied hardly faster than floats ({_percent(share)} of its"
                " multiply-accumulates)"
            )


def _weights_only(audit: Audit) -> Iterator[str]:
    share = _sum(audit.mac_share, _is_weight_only)
    if share >= WORTH_NAMING:
        words = ", ".join(word for word in audit.mac_share if _is_weight_only(word))
        yield (
            f"its integer weights are turned into floats: {_percent(share)} of its multiply-accumulates are float"
            f" ({words})"
        )


def _not_delegated(audit: Audit, runtime: str, profile: Profile | None) -> Iterator[str]:
    if profile:
        share, words = profile.share(_is_left_by_delegate), _words(profile, _is_left_by_delegate)
        if share >= WORTH_NAMING:
            yield f"{_percent(share)} of the time is in convolutions that XNNPACK leaves to built-in kernels ({words})"
        return
    share = _sum(audit.mac_share, lambda word: "int4" in word and not _is_weight_only(word))
    if runtime == "litert" and share >= WORTH_NAMING:
        yield f"{_percent(share)} of its multiply-accumulates have 4-bit weights, which XNNPACK does not convolve"


def _dynamic(audit: Audit) -> Iterator[str]:
    share = _sum(audit.mac_share, lambda word: word.startswith("dynamic_"))
    if share >= WORTH_NAMING:
        yield f"activations are quantized anew at each inference ({_percent(share)} of its multiply-accumulates)"


def _left_in_float(audit: Audit) -> Iterator[str]:
    share = _sum(audit.mac_share, _is_float)
    if share >= WORTH_NAMING:
        yield f"{_percent(share)} of its multiply-accumulates were left in float"


def _what_is_known(audit: Audit, profile: Profile | None) -> str:
    if profile is None:
        words = ", ".join(f"{_percent(share)} {word}" for word, share in audit.mac_share.items())
        return f"its multiply-accumulates are {words}; profile it"
    slowest = sorted(profile.operators, key=lambda item: -item.time_ms)[:3]
    total = sum(item.time_ms for item in profile.operators) or 1.0
    named = ", ".join(f"{item.layer or item.operator} {_percent(item.time_ms / total)}" for item in slowest)
    return f"its profile has no reference kernels, nothing run in float, few conversions; the slowest are {named}"


def _is_float(word: str) -> bool:
    return word.startswith(_FLOATS)


def _is_integer(word: str) -> bool:
    return not _is_float(word)


def _is_weight_only(word: str) -> bool:
    return word.startswith("weight_only_")


def _has_wide_activations(word: str) -> bool:
    return word.endswith(("x16", "int16"))


def _multiplies_bytes(word: str) -> bool:
    return _is_integer(word) and not _is_weight_only(word) and not _has_wide_activations(word)


def _is_reference(item: OperatorTime) -> bool:
    return item.kernel == "reference"


def _is_float_fallback(item: OperatorTime) -> bool:
    return item.is_fallback and not _is_reference(item) and not _is_weight_only(item.arithmetic)


def _is_left_by_delegate(item: OperatorTime) -> bool:
    return item.kernel == "builtin" and item.role == "convolution"


def _words(
    profile: Profile,
    chosen: Callable[[OperatorTime], bool],
    word: Callable[[OperatorTime], str] = lambda item: item.arithmetic,
) -> str:
    """Returns the words of the chosen operators, that which takes most time first."""
    times: dict[str, float] = {}
    for item in filter(chosen, profile.operators):
        times[word(item)] = times.get(word(item), 0.0) + item.time_ms
    return ", ".join(sorted(times, key=lambda name: -times[name]))


def _sum(shares: dict[str, float], chosen: Callable[[str], bool]) -> float:
    return sum(share for word, share in shares.items() if chosen(word))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
