"""Artifacts of a plan: who ranks layers for whom."""

from dataclasses import replace

import pytest

from orchestrator.artifacts import ranked_by
from orchestrator.plan import TRAINED_FOR
from tasks.quantize.schemes import DynamicInt8, Qat, QatInt4, QatInt8, StaticInt8

RANKED = QatInt8(keep_float="most_sensitive_3", range_estimator="mse", symmetry="symmetric", epochs=2)


@pytest.mark.parametrize(
    "other",
    [
        replace(RANKED, toolchain="onnxruntime", activation_type="int8"),
        replace(RANKED, toolchain="litert_quantizer", input_type="uint8"),
        replace(RANKED, epochs=0),
        replace(RANKED, keep_float="most_sensitive_5", training_seed=3),
    ],
)
def test_one_ranking_serves_trainings_whatever_is_made_of_them(other: Qat) -> None:
    assert ranked_by(other) == ranked_by(RANKED)


def test_a_training_is_ranked_by_post_training_quantization_of_the_same_numbers() -> None:
    ranks = StaticInt8(toolchain="litert_quantizer", range_estimator="mse", symmetry="symmetric")
    assert ranked_by(RANKED) == ranks
    assert ranked_by(replace(RANKED, granularity="per_tensor")) == replace(ranks, granularity="per_tensor")
    four = ranked_by(QatInt4(keep_float="most_sensitive_1", weight_algorithm="mse"))
    assert (four.name, four.axes()["weight_algorithm"]) == ("static_int4", "mse")


def test_every_axis_that_a_training_depends_on_is_an_axis_of_its_schemes() -> None:
    assert set(TRAINED_FOR) <= set(RANKED.axes()) | set(QatInt4().axes())


def test_toolchains_of_litert_rank_themselves_and_litert_quantizer_ranks_for_others() -> None:
    ours = StaticInt8(keep_float="most_sensitive_3")
    assert ranked_by(ours) == StaticInt8()
    assert ranked_by(replace(ours, toolchain="onnxruntime")).axes()["toolchain"] == "litert_quantizer"
    per_tensor = DynamicInt8(toolchain="onnxruntime", granularity="per_tensor", keep_float="most_sensitive_1")
    assert ranked_by(per_tensor) == replace(per_tensor, toolchain="litert_quantizer", keep_float="none")
