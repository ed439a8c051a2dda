"""Which learner a trainer has."""

from tasks.detector.weights import Detector
from tasks.training.learner import Learner, Ranges, Simulation, Trainer
from tasks.training.recipe import Recipe

PACKAGES_OF_TRAINERS: dict[str, tuple[str, ...]] = {
    "keras": ("tensorflow", "tensorflow-model-optimization", "tf-keras"),
    "torch": ("torch", "torchao"),
}
"""Distributions that a trainer needs, and whose versions decide about its weights."""


def learner_of(
    trainer: Trainer,
    detector: Detector,
    recipe: Recipe,
    simulation: Simulation | None = None,
    ranges: Ranges | None = None,
    teacher: Detector | None = None,
    is_from_scratch: bool = False,
) -> Learner:
    """Makes a learner.

    Args:
        trainer: The framework.
        detector: Where training starts.
        recipe: How it is trained.
        simulation: What is quantized; None trains a float detector.
        ranges: First ranges of activations, for every layer and `image`; needed with a simulation.
        teacher: The float detector to learn from, if the recipe distils; `detector` if None.
        is_from_scratch: Whether to draw first weights for the detector's architecture; with Keras alone, nothing
            quantized and no teacher.

    Returns:
        The learner.

    Raises:
        ValueError: If something else is asked for from scratch.
    """
    if is_from_scratch:
        if trainer != "keras" or simulation is not None or recipe.distillation_weight:
            raise ValueError("from scratch, a float detector is trained with Keras, from labels alone")
        from tasks.detector.scratch_learner import ScratchLearner

        return ScratchLearner(detector.spec, recipe)
    if trainer == "keras":
        from tasks.quantize.qat_keras import KerasLearner

        return KerasLearner(detector, recipe, simulation, ranges, teacher)
    from tasks.quantize.qat_torch import TorchLearner

    return TorchLearner(detector, recipe, simulation, ranges, teacher)
