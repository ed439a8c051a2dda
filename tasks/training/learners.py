"""Which learner a trainer has."""

from tasks.detector.weights import Detector
from tasks.training.learner import Learner, Ranges, Simulation, Trainer
from tasks.training.recipe import Recipe


def learner_of(
    trainer: Trainer,
    detector: Detector,
    recipe: Recipe,
    simulation: Simulation | None = None,
    ranges: Ranges | None = None,
) -> Learner:
    """Makes a learner.

    Args:
        trainer: The framework.
        detector: Where training starts, and the float teacher if the recipe distils.
        recipe: How it is trained.
        simulation: What is quantized; None trains a float detector.
        ranges: First ranges of activations, for every layer and `image`; needed with a simulation.

    Returns:
        The learner.
    """
    if trainer == "keras":
        from tasks.quantize.qat_keras import KerasLearner

        return KerasLearner(detector, recipe, simulation, ranges)
    from tasks.quantize.qat_torch import TorchLearner

    return TorchLearner(detector, recipe, simulation, ranges)
