"""Why an integer variant is not faster is said in one line, with the figures that show it."""

from typing import Any

import pytest

from tasks.profiles.explanation import explanation
from tasks.types import Audit, OperatorTime, Profile

VNNI = ("avx", "avx2", "avx512f", "avx512_vnni")


def audit(**mac_share: float) -> Audit:
    return Audit(mac_share, {"int8": 1.0}, "per_channel", {}, 1000, "float32", {})


def operator(time_ms: float, **changes: Any) -> OperatorTime:
    values: dict[str, Any] = {
        "name": "a",
        "operator": "CONV_2D",
        "role": "convolution",
        "layer": "Conv2d_0",
        "arithmetic": "int8",
        "kernel": "XNNPACK",
        "macs": 1,
        "is_fallback": False,
    }
    return OperatorTime(time_ms=time_ms, **{**values, **changes})


def profile(*operators: OperatorTime) -> Profile:
    return Profile(operators, sum(item.time_ms for item in operators), 10, "by hand")


def explained(
    found: Audit,
    executed: dict[str, float] | None = None,
    isa: tuple[str, ...] = VNNI,
    runtime: str = "litert",
    profile: Profile | None = None,
) -> str:
    line = explanation(1.02, 1.0, found, executed, isa, runtime, profile)
    assert line
    assert "\n" not in line
    assert line.startswith(f"not faster than float32 on {runtime} (1.02 times its time): ")
    return line.partition(": ")[2]


@pytest.mark.parametrize(("ratio", "float_ratio"), [(0.95, 1.0), (0.5, 1.0), (1.8, 2.0)])
def test_there_is_nothing_to_explain_where_integers_are_faster(ratio: float, float_ratio: float) -> None:
    assert explanation(ratio, float_ratio, audit(int8=1), None, VNNI, "litert", None) is None


@pytest.mark.parametrize("word", ["float32", "float16", "bfloat16"])
def test_there_is_nothing_to_explain_without_integers(word: str) -> None:
    assert explanation(2.0, 1.0, audit(**{word: 1}), None, (), "litert", None) is None


def test_it_is_compared_with_float32_of_the_same_runtime() -> None:
    line = explanation(1.5, 1.0, audit(int8=1), None, VNNI, "torch", None)
    assert line
    assert "(1.50 times its time)" in line
    assert explanation(1.5, 2.0, audit(int8=1), None, VNNI, "torch", None) is None


def test_reference_kernels_are_named_with_their_share_of_the_time() -> None:
    slow = profile(operator(98, kernel="reference", arithmetic="int8x16", is_fallback=True), operator(2))
    line = explained(audit(int8x16=1), profile=slow)
    assert line == "98 % of the time is in reference kernels, written to be read, not to be fast (int8x16)"


def test_without_a_profile_the_arithmetic_tells_of_reference_kernels() -> None:
    assert "100 % of its multiply-accumulates have 16-bit activations" in explained(audit(int8x16=1))
    assert "reference kernels" not in explained(audit(int8x16=1), runtime="openvino")


def test_integers_that_are_executed_in_float_are_named() -> None:
    line = explained(audit(int8=0.9, float32=0.1), {"float32": 0.7, "int8": 0.3}, runtime="onnxruntime")
    assert line.startswith("60 % of its multiply-accumulates are stored as integers and executed in float32")


def test_what_was_kept_in_float_is_not_blamed_on_the_runtime() -> None:
    line = explained(audit(int8=0.9, float32=0.1), {"int8": 0.9, "float32": 0.1})
    assert line == "10 % of its multiply-accumulates were left in float"


def test_without_the_executed_arithmetic_the_profile_tells_of_floats() -> None:
    found = profile(operator(3, is_fallback=True), operator(7))
    assert explained(audit(int8=1), profile=found).startswith("30 % of the time is in operators that are stored as")


def test_conversions_are_named_with_their_share_of_the_time() -> None:
    found = profile(
        operator(1, role="conversion", operator="DEQUANTIZE"),
        operator(2, role="conversion", operator="Reorder"),
        operator(7),
    )
    line = explained(audit(int8=1), profile=found)
    assert line == "30 % of the time is in conversions of type or layout (Reorder, DEQUANTIZE)"


@pytest.mark.parametrize(("isa", "word"), [(("avx", "avx2"), "VNNI or AMX"), (("asimd",), "dot-product or i8mm")])
def test_missing_instructions_are_named(isa: tuple[str, ...], word: str) -> None:
    line = explained(audit(int8=1), isa=isa)
    assert f"this CPU has no {word} instructions" in line
    assert "(100 % of its multiply-accumulates)" in line


@pytest.mark.parametrize("isa", [VNNI, ("avx", "amx_int8"), ("avx", "avx_vnni"), ("asimd", "asimddp"), ()])
def test_instructions_that_are_there_or_not_known_are_not_blamed(isa: tuple[str, ...]) -> None:
    assert "this CPU" not in explained(audit(int8=1), isa=isa)


@pytest.mark.parametrize("word", ["int8x16", "weight_only_int8"])
def test_missing_instructions_are_not_blamed_where_no_bytes_are_multiplied(word: str) -> None:
    assert "this CPU" not in explained(audit(**{word: 1}), isa=("avx",))


def test_weights_that_are_turned_into_floats_are_named_once() -> None:
    line = explained(audit(weight_only_int8=1), {"float32": 1.0})
    assert line == (
        "its integer weights are turned into floats: 100 % of its multiply-accumulates are float (weight_only_int8)"
    )


def test_convolutions_that_the_delegate_leaves_are_named() -> None:
    found = profile(operator(84, kernel="builtin", arithmetic="int4x8"), operator(16))
    line = explained(audit(int4x8=0.9, int8=0.1), profile=found)
    assert line == "84 % of the time is in convolutions that XNNPACK leaves to built-in kernels (int4x8)"


@pytest.mark.parametrize("word", ["int4x8", "dynamic_int4"])
def test_without_a_profile_the_arithmetic_tells_what_the_delegate_leaves(word: str) -> None:
    assert "100 % of its multiply-accumulates have 4-bit weights" in explained(audit(**{word: 1}))
    assert "XNNPACK" not in explained(audit(**{word: 1}), runtime="torch")
    assert "XNNPACK" not in explained(audit(weight_only_int4=1))


def test_quantization_at_each_inference_is_named() -> None:
    line = explained(audit(dynamic_int8=0.96, float32_small=0.04))
    assert line == "activations are quantized anew at each inference (96 % of its multiply-accumulates)"


def test_several_reasons_stand_in_one_line_the_weightiest_kind_first() -> None:
    found = profile(operator(50, role="conversion", operator="QUANTIZE"), operator(50))
    line = explained(audit(dynamic_int8=1), isa=("avx",), profile=found)
    reasons = line.split("; ")
    assert [reason.split(" (")[0][:20] for reason in reasons] == [
        "50 % of the time is ",
        "this CPU has no VNNI",
        "activations are quan",
    ]


def test_it_is_admitted_where_nothing_is_found() -> None:
    assert explained(audit(int8=1)) == (
        "no reason found: its multiply-accumulates are 100 % int8; profile it"
    )  # fmt: skip
    line = explained(audit(int8=1), profile=profile(operator(3), operator(1, layer=None, operator="LOGISTIC")))
    assert line.endswith("the slowest are Conv2d_0 75 %, LOGISTIC 25 %")
    assert "profile it" not in line


def test_shares_that_explain_nothing_are_not_named() -> None:
    found = profile(operator(4, kernel="reference", is_fallback=True), operator(96))
    assert (
        "reference"
        not in explained(audit(int8=0.97, float32=0.03), {"float32": 0.04, "int8": 0.96}, profile=found).split(
            "no reason found"
        )[0]
    )
