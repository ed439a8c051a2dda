"""A training that takes microseconds an update: a learner of NumPy, and batches out of a hat."""

import time
from collections.abc import Callable

import numpy as np

from tasks.coco.image_file import ImageFile
from tasks.detector.weights import Detector
from tasks.identity import key_of
from tasks.training.learner import Batch, Losses, Ranges
from tasks.training.recipe import Recipe
from tasks.training.samples import TrainingSet
from tasks.training.training import Training
from tests.detectors import tiny_detector

WIDTH = 16
TAUGHT = "Conv2d_0/bias"


def images_of(count: int, is_annotated: bool = True) -> TrainingSet:
    """Images that are not there: the batches below need none."""
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    boxes, columns, crowds = ((item,) * count for item in nothing)
    files = tuple(ImageFile(number, f"{number}.jpg", 0, 0) for number in range(count))
    return TrainingSet(files, boxes, columns, crowds, is_annotated, fingerprint=f"{count} images")


def training_of(images: int = 23, is_annotated: bool = True, **settings) -> Training:
    """A training of 24 updates in 6 points, unless the settings say otherwise."""
    recipe = Recipe(**{"epochs": 8, "learning_rate": 0.05, "points": 6, "patience": None, **settings})
    return Training(key_of("toy", images, recipe), "keras", tiny_detector(), recipe, images_of(images, is_annotated))


class ToyBatches:
    """Batches of noise, the same for the same seed and step; the held-out ones are of two sizes."""

    def __init__(self, images: TrainingSet, spec: object, recipe: Recipe) -> None:
        self._recipe, self._images = recipe, len(images)

    def at(self, step: int) -> Batch:
        return self._batch((self._recipe.seed, step), 3 if step % 3 == 2 else self._recipe.batch_size)

    def held_out(self) -> list[Batch]:
        return [self._batch((self._recipe.seed, 10**6), 5), self._batch((self._recipe.seed, 10**6 + 1), 2)]

    def _batch(self, seed: tuple[int, int], size: int) -> Batch:
        random = np.random.default_rng(seed)
        pixels = random.integers(100, 156, (size, 1, 1, WIDTH), np.uint8)
        return Batch(pixels, random.normal(size=(size, 1, 4)).astype(np.float32), np.zeros((size, 1), np.int32))


class ToyLearner:
    """Learns the mean pixel by gradient descent with momentum, in single precision."""

    device = "cpu"

    def __init__(
        self, detector: Detector, recipe: Recipe, on_step: Callable[[int], None] = lambda updates: None
    ) -> None:  # fmt: skip
        self._detector, self._on_step = detector, on_step
        self._weights = np.random.default_rng(recipe.seed).normal(size=WIDTH).astype(np.float32)
        self._momentum = np.zeros(WIDTH, np.float32)
        self._updates = np.array(0, np.int64)
        self._greatest = np.array(0.0, np.float64)

    def step(self, batch: Batch, learning_rate: float, is_observing: bool) -> Losses:
        losses, difference = self._losses(batch)
        self._momentum = np.float32(0.9) * self._momentum + difference
        self._weights = self._weights - np.float32(learning_rate) * self._momentum
        self._updates = self._updates + np.int64(1)
        if is_observing:
            self._greatest = np.array(max(float(self._greatest), float(np.abs(self._weights).max())), np.float64)
        self._on_step(int(self._updates))
        return losses

    def evaluate(self, batch: Batch) -> Losses:
        return self._losses(batch)[0]

    def state(self) -> dict[str, np.ndarray]:
        return {
            "weights": self._weights.copy(),
            "momentum": self._momentum.copy(),
            "updates": np.array(self._updates),
            "greatest": np.array(self._greatest),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._weights, self._momentum = state["weights"].copy(), state["momentum"].copy()
        self._updates, self._greatest = np.array(state["updates"]), np.array(state["greatest"])

    def detector(self) -> Detector:
        return Detector(self._detector.spec, {**self._detector.tensors, TAUGHT: self._taught()})

    def ranges(self) -> Ranges:
        return {"image": (0.0, float(self._greatest))}

    def _taught(self) -> np.ndarray:
        bias = self._detector.tensors[TAUGHT]
        return np.resize(self._weights, bias.shape).astype(np.float32)

    def _losses(self, batch: Batch) -> tuple[Losses, np.ndarray]:
        difference = self._weights - batch.pixels.mean((0, 1, 2), np.float32) / np.float32(128)
        box = float(np.mean(difference**2, dtype=np.float32))
        score = float(np.mean(np.abs(difference), dtype=np.float32))
        # Far from the held-out measure, so that the two cannot be mistaken for one another.
        distillation = float(np.mean(np.abs(batch.codes), dtype=np.float32)) + box
        return Losses(box, score, distillation, box + score), difference


def slowly(seconds: float) -> Callable[[int], None]:
    """Makes updates last, so that a process can be killed between them."""
    return lambda updates: time.sleep(seconds)
