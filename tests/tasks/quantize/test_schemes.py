"""Schemes: which axes exist, and which values they take."""

import pytest

from tasks.identity import key_of
from tasks.quantize.schemes import SCHEMES, DynamicInt8, Float32, StaticInt8, StaticInt8x16


def test_fixed_ranges_have_no_calibration_axes_so_that_sizes_and_seeds_collapse():
    made = {StaticInt8(range_estimator="fixed", calibration_images=size, calibration_seed=size) for size in (8, 32)}
    (only,) = made
    assert not only.is_calibrated
    assert "calibration_images" not in only.axes()
    assert key_of(only) == key_of(StaticInt8(range_estimator="fixed"))


def test_what_only_names_a_default_is_equal():
    assert StaticInt8(symmetry="asymmetric", transform="none", keep_float="none") == StaticInt8()


def test_only_activations_of_8_bits_can_be_asymmetric():
    assert "symmetry" in StaticInt8().axes()
    assert "symmetry" not in StaticInt8x16().axes()


def test_codebooks_and_binary_weights_are_simulated():
    assert [Float32(transform=name).is_simulated for name in ("none", "equalized", "clustered_16", "binary")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_a_ranking_is_needed_for_the_most_sensitive_layers_alone():
    assert DynamicInt8(keep_float="most_sensitive_3").needs_ranking
    assert not DynamicInt8(keep_float="Conv2d_0").needs_ranking
    assert not Float32().needs_ranking
    assert DynamicInt8().keeping("Conv2d_0") == DynamicInt8(keep_float="Conv2d_0")
    with pytest.raises(ValueError, match="float32 has no axis keep_float"):
        Float32().keeping("Conv2d_0")


def test_every_scheme_is_registered_under_its_own_name():
    assert all(SCHEMES[name]().name == name for name in SCHEMES)


@pytest.mark.parametrize(
    ("axis", "value", "choices"),
    [
        ("granularity", "per_row", "per_channel, per_tensor"),
        ("symmetry", "skew", "asymmetric, symmetric"),
        ("weight_algorithm", "magic", "min_max, mse, octav, gptq, oscar"),
        ("range_estimator", "percentile", "min_max, moving_average, mean_min_max, percentile_99_99"),
        ("range_estimator", "percentile_20", "min_max, moving_average, mean_min_max, percentile_99_99"),
        ("transform", "clustered_17", "none, "),
        ("input_type", "int4", "float32, int8, uint8"),
        ("keep_float", "a b", "none, most_sensitive_N"),
    ],
)
def test_a_wrong_value_is_refused_with_the_choices(axis, value, choices):
    with pytest.raises(ValueError) as caught:
        StaticInt8(**{axis: value})
    message = str(caught.value)
    assert message.startswith(f"{axis} is {value!r}")
    assert f"choices: {choices}" in message
