"""Learners: a detector in a framework on its way through a training. The loop knows nothing else of frameworks."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from tasks.detector.weights import Detector

Trainer = Literal["keras", "torch"]
"""Framework that trains: tf-keras with tensorflow-model-optimization, or torch with torchao."""

TRAINERS: tuple[str, ...] = get_args(Trainer)

Ranges = dict[str, tuple[float, float]]
"""(low, high) of activations by canonical name of the layer whose output it is, and of the input under `image`. The
heads of one role have one range, since runtimes that join them in integers need one."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one update, with what the detector should answer."""

    pixels: np.ndarray
    """(B, S, S, 3) uint8 RGB."""

    codes: np.ndarray
    """(B, A, 4) float32 [ty, tx, th, tw], see `tasks.training.targets.Targets`."""

    columns: np.ndarray
    """(B, A) int32 score column that each anchor should find; `BACKGROUND` for none, `IGNORED` where nothing counts."""


@dataclass(frozen=True)
class Losses:
    """Losses of a batch; each is a mean that does not grow with the batch."""

    box: float
    """Loss of the boxes against the labels: of images without annotations, 0."""

    score: float
    """Loss of the scores against the labels: of images without annotations, as if all were background."""

    distillation: float
    """Loss of boxes and scores against the float teacher's; 0 if there is no teacher."""

    total: float
    """What the update makes small: (1 - d) * (box_weight * box + score_weight * score) + d * distillation, d the
    distillation weight."""


@dataclass(frozen=True)
class Simulation:
    """What is quantized while a detector trains: fake quantization, as the artifact will do it in integers.

    Weights are symmetric without their least integer (8 bits: -127 to 127; 4 bits: -7 to 7) over their greatest
    magnitude. Activations have 256 levels over their range: the input, the output of each layer that is no head after
    its activation function, and the heads of one role after they are joined (the scores before the sigmoid).
    """

    weight_bits: int
    """Width of the weights of convolutions that are not depthwise: 8 or 4."""

    depthwise_bits: int
    """Width of depthwise weights: 8."""

    is_per_channel: bool
    """Whether each output channel of a weight tensor has its own scale."""

    is_symmetric: bool
    """Whether activations have the zero point in the middle of their integers, over [-m, m] for the greatest magnitude
    m; else the range is widened to hold zero and its ends moved so that zero is an integer."""

    kept_float: frozenset[str] = frozenset()
    """Canonical names of layers whose weights and inputs stay in float."""


class Learner(Protocol):
    """A detector that learns. On one CPU thread, equal states and batches give equal states, bit for bit.

    Made by `tasks.training.learners.learner_of`.
    """

    device: str
    """Where it computes: `cpu`, or the name of the GPU."""

    def step(self, batch: Batch, learning_rate: float, is_observing: bool) -> Losses:
        """Makes one update.

        Args:
            batch: Augmented images.
            learning_rate: Of this update.
            is_observing: Whether the ranges of activations may move.

        Returns:
            The losses before the update.
        """

    def evaluate(self, batch: Batch) -> Losses:
        """Computes losses, quantized as in training, without changing anything.

        Args:
            batch: Images, of any number.

        Returns:
            The losses.
        """

    def state(self) -> dict[str, np.ndarray]:
        """Returns copies of everything that `restore` needs to go on as if nothing had happened: weights, the
        optimizer's slots and counters, ranges of observers. Names are the learner's own.
        """

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state.

        Args:
            state: What `state` of an equally made learner returned.
        """

    def detector(self) -> Detector:
        """Returns the float weights as they are now, in canonical form."""

    def ranges(self) -> Ranges:
        """Returns the ranges of activations as they are now; empty if nothing is quantized."""
