"""Training in Keras 2, of float detectors and, with tensorflow-model-optimization, of quantized ones.

Import this module inside functions only: it imports TensorFlow.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.training.keras_graph import IMAGE, activation_name, detector_graph, parameters_of
from tasks.training.keras_learner import GraphLearner
from tasks.training.learner import Ranges, Simulation
from tasks.training.recipe import Recipe


class KerasLearner(GraphLearner):
    """A detector that learns in Keras; see `tasks.training.learner.Learner`."""

    def __init__(
        self,
        detector: Detector,
        recipe: Recipe,
        simulation: Simulation | None = None,
        ranges: Ranges | None = None,
        teacher: Detector | None = None,
    ) -> None:
        """Builds the graph; see `tasks.training.learners.learner_of`.

        Args:
            detector: Where training starts.
            recipe: How it is trained.
            simulation: What is quantized; None trains a float detector.
            ranges: First ranges of activations, for every layer and `image`; needed with a simulation.
            teacher: The float detector to learn from, if the recipe distils; `detector` if None.

        Raises:
            QuantizationFailed: If a range is missing.
        """
        model = _float_graph(detector) if simulation is None else _simulated_graph(detector, simulation)
        _give_weights(model, detector)
        answers = None
        if recipe.distillation_weight:
            answers = _float_graph(teacher or detector)
            _give_weights(answers, teacher or detector)
        super().__init__(model, detector.spec, recipe, answers)
        self._detector = detector
        self._places = {IMAGE: IMAGE} | {layer.name: activation_name(layer) for layer in layers(detector.spec)}
        self._first_ranges: Ranges = {}
        self._range_variables: dict[str, Any] = {}
        if simulation is not None:
            self._take_ranges(ranges or {})

    def detector(self) -> Detector:
        """See `Learner.detector`."""
        tensors = dict(self._detector.tensors)
        for layer in layers(self._detector.spec):
            weights, bias = parameters_of(self._model, layer)
            tensors[f"{layer.name}/weights"], tensors[f"{layer.name}/bias"] = weights.numpy(), bias.numpy()
        return replace(self._detector, tensors=tensors)

    def ranges(self) -> Ranges:
        """See `Learner.ranges`; those of activations that stay in float are the first ones."""
        found = dict(self._first_ranges)
        moved = {place: variable.numpy().tolist() for place, variable in self._range_variables.items()}
        found |= {name: (moved[place][0], moved[place][1]) for name, place in self._places.items() if place in moved}
        return found

    def _take_ranges(self, ranges: Ranges) -> None:
        """Sets the first ranges."""
        from tasks.quantize.qat_keras_quantizers import range_variables

        missing = sorted(self._places.keys() - ranges.keys())
        if missing:
            raise QuantizationFailed(f"the first ranges of activations are of another detector: they lack {missing[0]}")
        self._first_ranges = {name: ranges[name] for name in self._places}
        self._range_variables = range_variables(self._model)
        for place, variable in self._range_variables.items():
            # The heads of one role have one range already; where they have not, one must hold all.
            lows, highs = zip(*(ranges[name] for name, other in self._places.items() if other == place), strict=True)
            variable.assign(np.array([min(lows), max(highs)], np.float32))


def _float_graph(detector: Detector) -> Any:
    return detector_graph(detector, lambda layer, name: layer)


def _simulated_graph(detector: Detector, simulation: Simulation) -> Any:
    from tasks.quantize.qat_keras_quantizers import simulated_graph

    return simulated_graph(detector, simulation)


def _give_weights(model: Any, detector: Detector) -> None:
    for layer in layers(detector.spec):
        weights, bias = parameters_of(model, layer)
        weights.assign(detector.tensors[f"{layer.name}/weights"])
        bias.assign(detector.tensors[f"{layer.name}/bias"])
