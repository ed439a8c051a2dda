"""Both frameworks train alike: the same outputs, losses and updates of the same simulation, ranges and images."""

import dataclasses

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.quantize.qat_keras import KerasLearner
from tasks.quantize.qat_torch import TorchLearner
from tasks.training.learner import Learner, Simulation
from tasks.training.recipe import Recipe
from tests.tasks.quantize.test_qat_torch import DETECTOR, RANGES, batch

pytestmark = pytest.mark.slow

RATE = 1e-2
RECIPE = Recipe(epochs=1, learning_rate=RATE, optimizer="sgd", weight_decay=0.01, distillation_weight=0.5)
# Over exactly [-1, 1] each pixel lies halfway between two integers, and the last bit of a float32 chooses.
FIRST = {**RANGES, "image": (-1.013, 1.021)}
INT8 = Simulation(8, 8, is_per_channel=True, is_symmetric=False)
INT4 = Simulation(4, 8, is_per_channel=False, is_symmetric=True)
LATE = ("Conv2d_13", "BoxPredictor_0", "BoxPredictor_1")
"""Where few activations are rounded, one on the other side of a border does not push over others."""


def learners(simulation: Simulation | None, recipe: Recipe = RECIPE) -> tuple[KerasLearner, TorchLearner]:
    ranges = None if simulation is None else FIRST
    return KerasLearner(DETECTOR, recipe, simulation, ranges), TorchLearner(DETECTOR, recipe, simulation, ranges)


def moves(learner: Learner) -> dict[str, np.ndarray]:
    return {name: tensor - DETECTOR.tensors[name] for name, tensor in learner.detector().tensors.items()}


def norm(tensors: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum((tensor.astype(np.float64) ** 2).sum() for tensor in tensors.values())))


def difference(ones: Learner, others: Learner) -> float:
    """How far apart two learners have moved, as a share of the way."""
    one, other = moves(ones), moves(others)
    return norm({name: one[name] - other[name] for name in one}) / norm(other)


@pytest.mark.parametrize("simulation", [INT8, INT4])
def test_simulated_detectors_agree(simulation):
    keras, torch = learners(simulation)
    pixels = batch(4).pixels
    exact = learners(None)[1].outputs(pixels)
    for ours, theirs, floats in zip(keras.outputs(pixels), torch.outputs(pixels), exact, strict=True):
        # One value on the other side of a border pushes over others behind it.
        assert np.abs(ours - theirs).mean() < 0.35 * np.abs(theirs - floats).mean()
    one, other = (learner.step(batch(4), RATE, is_observing=True) for learner in (keras, torch))
    # How many do so depends on the CPU, whose kernels add up in other orders.
    for field in ("box", "score", "total"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-3)
    assert difference(keras, torch) < 0.25
    for name, range_ in torch.ranges().items():
        assert keras.ranges()[name] == pytest.approx(range_, abs=2e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_float_detectors_learn_the_same(optimizer):
    keras, torch = learners(None, dataclasses.replace(RECIPE, optimizer=optimizer))
    for step, rate in enumerate((RATE, RATE / 2, 0.0, RATE)):
        one, other = (learner.step(batch(3, step), rate, is_observing=False) for learner in (keras, torch))
        assert one.total == pytest.approx(other.total, rel=1e-4)
    assert difference(keras, torch) < 1e-3


@pytest.mark.parametrize("simulation", [INT4, INT8])
def test_updates_are_equal_to_rounding_where_no_border_decides(simulation):
    kept = frozenset(layer.name for layer in layers(DETECTOR.spec) if not layer.name.startswith(LATE))
    keras, torch = learners(dataclasses.replace(simulation, kept_float=kept))
    for is_observing in (True, False):
        one, other = (learner.step(batch(3), RATE, is_observing) for learner in (keras, torch))
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), rel=1e-4, abs=1e-5)
        assert difference(keras, torch) < 1e-3
    for name in ("boxes", "scores"):
        head = f"BoxPredictor_0_{name}"
        assert keras.ranges()[head] == pytest.approx(torch.ranges()[head], rel=1e-5)
        assert keras.ranges()[head] != FIRST[head]
