"""The search space: products, conditions, collapses and refusals."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator import block
from orchestrator.space import REFERENCE, expand
from tasks.quantize.builders import builders, refusals
from tasks.quantize.schemes import SCHEMES, Float32, StaticInt8


def _messages(*blocks):
    return [message for _, message in expand(list(blocks), [1])[1]]


def test_fixed_ranges_collapse_over_sizes_and_seeds():
    asked = {
        "scheme": "static_int8", "toolchain": "litert_quantizer", "range_estimator": ["min_max", "fixed"],
        "calibration_images": [8, 32], "calibration_seed": [0, 1],
    }  # fmt: skip
    space, broken = expand([asked], [1])
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
    assert (
        message == "static_int8 cannot be made for the runtime 'keras'; choices: litert, onnxruntime, openvino, torch"
    )


def test_an_axis_that_exists_for_nothing_in_its_block_is_refused():
    (message,) = _messages({"runtime": "litert", "scheme": "static_int8", "memory_layout": "contiguous"})
    assert message == (
        "`memory_layout` exists for nothing that the block asks for: static_int8 of the toolchain converter"
    )
    asked = {"runtime": ["litert", "torch"], "scheme": "static_int8", "memory_layout": ["contiguous", "channels_last"]}
    space, broken = expand([asked], [1])
    assert not broken
    assert [each.settings.runtime for each in space.variants[2:]] == ["litert", "torch", "torch"]


def test_options_of_a_runtime_make_variants_of_one_artifact():
    asked = {"runtime": "onnxruntime", "scheme": "float32", "graph_optimization": ["all", "basic"]}
    space, broken = expand([asked], [1, 2])
    assert not broken
    assert [each.label for each in space.variants[1:]] == [
        "onnxruntime-float32-onnx-t1",
        "onnxruntime-float32-onnx-t2",
        "onnxruntime-float32-onnx-basic-t1",
        "onnxruntime-float32-onnx-basic-t2",
    ]
    assert len({each.scheme for each in space.variants[1:]}) == 1


def test_an_option_belongs_to_the_runtimes_of_its_block_that_have_it():
    asked = {"runtime": ["litert", "openvino"], "scheme": "float32", "inference_precision": "bfloat16"}
    space, broken = expand([asked], [1])
    assert not broken
    assert [each.label for each in space.variants] == [
        "litert-float32-converter-t1",
        "openvino-float32-onnx-t1",
        "openvino-float32-onnx-bfloat16-t1",
    ]


def test_wrong_options_are_refused_with_the_choices():
    (message,) = _messages({"runtime": "litert", "scheme": "float32", "graph_optimization": "basic"})
    assert message == "the runtime litert has no option `graph_optimization`; runtimes that have it: onnxruntime"
    (message,) = _messages({"runtime": "onnxruntime", "scheme": "float32", "graph_optimization": "most"})
    assert message == "graph_optimization is 'most'; choices: all, extended, basic, disabled"


def test_the_default_toolchain_of_a_runtime_is_the_one_it_prefers():
    blocks = [
        {"runtime": "torch", "scheme": ["float32", "static_int8", "dynamic_int8"]},
        {"runtime": "openvino", "scheme": ["float32", "static_int8"]},
        {"runtime": "onnxruntime", "scheme": ["float32", "static_int8", "dynamic_int8"]},
    ]
    space, broken = expand(blocks, [1])
    assert not broken
    found = {(each.settings.runtime, each.scheme.name): each.scheme.toolchain for each in space.variants}
    assert found == {
        ("litert", "float32"): "converter",
        ("torch", "float32"): "inductor",
        ("torch", "static_int8"): "pt2e",
        ("torch", "dynamic_int8"): "pt2e",
        ("openvino", "float32"): "onnx",
        ("openvino", "static_int8"): "nncf",
        ("onnxruntime", "float32"): "onnx",
        ("onnxruntime", "static_int8"): "onnxruntime",
        ("onnxruntime", "dynamic_int8"): "onnxruntime",
    }


def test_what_one_toolchain_makes_runs_where_the_block_says():
    asked = {"runtime": ["onnxruntime", "openvino"], "scheme": "static_int8", "toolchain": "onnxruntime"}
    space, broken = expand([asked], [1])
    assert not broken
    one, other = space.variants[-2:]
    assert one.scheme == other.scheme
    assert [one.settings.runtime, other.settings.runtime] == ["onnxruntime", "openvino"]


def test_a_runtime_that_is_not_installed_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(block, "is_installed", lambda package: package not in ("openvino", "nncf"))
    (message,) = _messages({"runtime": "openvino", "scheme": "static_int8"})
    assert message.startswith("the runtime openvino needs nncf, openvino, not installed here: ")
    assert message.endswith("pip install 'quantsweep[openvino]'")
    assert not expand([{"runtime": "litert", "scheme": "static_int8"}], [1])[1]


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
