"""Which layers a mixed-precision scheme leaves in float."""

import pytest

from tasks.quantize.kept_layers import check_keep_float, is_ranked, kept_layers

NAMES = ("Conv2d_0", "Conv2d_1_depthwise", "Conv2d_1_pointwise", "Conv2d_11_pointwise", "BoxPredictor_0_boxes")


def test_nothing_is_kept_by_default():
    assert kept_layers("none", NAMES) == ()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("Conv2d_1_pointwise", ("Conv2d_1_pointwise",)),
        ("*_pointwise", ("Conv2d_1_pointwise", "Conv2d_11_pointwise")),
        ("BoxPredictor_*|Conv2d_0", ("Conv2d_0", "BoxPredictor_0_boxes")),
        ("Conv2d_[01]*wise", ("Conv2d_1_depthwise", "Conv2d_1_pointwise", "Conv2d_11_pointwise")),
    ],
)
def test_names_and_patterns_are_kept_in_the_order_of_the_network(value, kept):
    check_keep_float(value)
    assert kept_layers(value, NAMES) == kept


def test_the_most_sensitive_are_the_first_of_the_ranking():
    ranking = ("BoxPredictor_0_boxes", "Conv2d_0", *NAMES[1:4])
    assert is_ranked("most_sensitive_2")
    assert kept_layers("most_sensitive_2", NAMES, ranking) == ("Conv2d_0", "BoxPredictor_0_boxes")


@pytest.mark.parametrize("value", ["", "a b", "a||b", "most_sensitive_0", "most_sensitive_", "most_sensitive_x", "a,b"])
def test_a_value_of_another_form_is_refused_with_the_choices(value):
    with pytest.raises(ValueError, match=r"keep_float is .*; choices: none, most_sensitive_N"):
        check_keep_float(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("Conv2d_99", "matches no layer; layers: Conv2d_0, "),
        ("Conv2d_0|Extra_*", "'Extra_\\*' matches no layer"),
        ("*", "matches every layer"),
        ("most_sensitive_5", "the detector has 5 layers"),
    ],
)
def test_a_value_that_does_not_fit_the_detector_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        kept_layers(value, NAMES, NAMES)
