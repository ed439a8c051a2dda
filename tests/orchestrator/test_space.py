"""The search space: products, conditions, collapses and refusals."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.space import REFERENCE, expand
from tasks.quantize.builders import builders, refusals
from tasks.quantize.schemes import SCHEMES, Float32, StaticInt8


def _messages(*blocks):
    return [message for _, message in expand(list(blocks), [1])[1]]


def test_fixed_ranges_collapse_over_sizes_and_seeds():
    block = {
        "scheme": "static_int8", "toolchain": "litert_quantizer", "range_estimator": ["min_max", "fixed"],
        "calibration_images": [8, 32], "calibration_seed": [0, 1],
    }  # fmt: skip
    space, broken = expand([block], [1])
    assert not broken
    assert len(space.variants) == 1 + 4 + 1
    assert space.repeats == {"litert-static_int8-litert_quantizer-per_channel-fixed-t1": 3}
    assert space.collapsed == 3


def test_every_other_runtime_brings_its_float32_build():
    space, broken = expand([{"runtime": "keras", "scheme": "bfloat16"}], [1])
    assert not broken
    assert space.variants[0] == REFERENCE
    assert (space.variants[1].scheme, space.variants[1].settings.runtime) == (Float32(toolchain="keras"), "keras")


def test_a_block_of_two_runtimes_is_made_for_both():
    space, broken = expand([{"runtime": ["litert", "keras"], "scheme": "float16"}], [1])
    assert not broken
    assert [variant.label for variant in space.variants] == [
        "litert-float32-converter-t1",
        "keras-float32-keras-t1",
        "litert-float16-converter-t1",
        "keras-float16-keras-t1",
    ]


def test_a_block_without_a_runtime_finds_the_one_that_makes_the_scheme():
    space, broken = expand([{"scheme": "bfloat16"}], [1])
    assert not broken
    assert space.variants[-1].settings.runtime == "keras"


def test_impossible_combinations_are_refused_with_the_reason_and_the_choices():
    (message,) = _messages({"scheme": "static_int8", "range_estimator": "entropy"})
    assert message.startswith("static_int8 of the toolchain converter cannot have range_estimator 'entropy': ")
    assert message.endswith("choices: min_max")
    (message,) = _messages({"runtime": "keras", "scheme": "static_int8"})
    assert message == "static_int8 cannot be made for the runtime 'keras'; choices: litert"


def test_every_limit_of_a_builder_has_a_reason_and_leaves_a_choice():
    for builder in builders():
        for limit in builder.limits:
            assert limit.reason
            assert limit.choices
            assert limit.axis in builder.scheme(toolchain=builder.toolchain).axes()


AXES = {
    "granularity": ["per_channel", "per_tensor"],
    "range_estimator": ["min_max", "mse", "fixed", "percentile_99_9"],
    "calibration_images": [8, 64],
    "calibration_seed": [0, 1],
    "symmetry": ["asymmetric", "symmetric"],
    "weight_algorithm": ["min_max", "mse"],
    "transform": ["none", "clustered_16"],
    "toolchain": ["converter", "litert_quantizer"],
}
values = st.fixed_dictionaries(
    {}, optional={axis: st.lists(st.sampled_from(found), min_size=1, max_size=3) for axis, found in AXES.items()}
)


@given(values, st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_a_product_is_either_refused_or_distinct_and_complete(axes, threads):
    space, broken = expand([{"scheme": "static_int8", **axes}], threads)
    labels = [variant.label for variant in space.variants]
    assert len(set(labels)) == len(labels)
    asked = len(threads)
    for found in axes.values():
        asked *= len(found)
    if not broken:
        named = len(space.variants) - 1
        assert named + space.collapsed == asked
    assert all(
        not refusals(builder, variant.scheme)
        for variant in space.variants
        for builder in builders()
        if (builder.scheme, builder.toolchain) == (type(variant.scheme), variant.scheme.toolchain)
    )


def test_every_scheme_can_be_asked_for_by_its_name_alone():
    for name in SCHEMES:
        space, broken = expand([{"scheme": name}], [1])
        assert not broken, (name, broken)
        assert space.variants[-1].scheme.name == name
    assert expand([{"scheme": "static_int8"}], [1])[0].variants[-1].scheme == StaticInt8()
