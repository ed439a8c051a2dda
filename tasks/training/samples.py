"""Training images: which there are, and the batch of each update."""

from dataclasses import dataclass

import numpy as np

from tasks.coco.image_file import ImageFile
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.training.learner import Batch
from tasks.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images on disk with their boxes. Small: the pixels are read when a batch needs them."""

    files: tuple[ImageFile, ...]
    """The images, sorted by id."""

    boxes: tuple[np.ndarray, ...]
    """For each image (objects, 4) float32 [ymin, xmin, ymax, xmax] as shares of the image's height and width."""

    columns: tuple[np.ndarray, ...]
    """For each image (objects,) int32 score column of each object."""

    crowds: tuple[np.ndarray, ...]
    """For each image (objects,) bool: whether it is a crowd, which no anchor has to find."""

    is_annotated: bool
    """Whether there are annotations; if not, all boxes are empty and only a teacher can say what is right."""

    fingerprint: str
    """Names the images' contents and boxes, as `Dataset.fingerprint` does."""

    def __len__(self) -> int:
        return len(self.files)


class Batches:
    """The batches of a training: functions of recipe and step alone, so that nothing of them needs a checkpoint."""

    def __init__(self, images: TrainingSet, spec: SSDMobileNetV1Spec, recipe: Recipe) -> None:
        """Splits off the held-out images.

        Args:
            images: All training images, two at least.
            spec: The architecture.
            recipe: Seed, batch size, augmentation.
        """
        raise NotImplementedError

    def at(self, step: int) -> Batch:
        """Returns the batch of an update: augmented images.

        Each epoch is a permutation of the images that are not held out; its last batch may be smaller.

        Args:
            step: Number of the update, from 0.
        """
        raise NotImplementedError

    def held_out(self) -> list[Batch]:
        """Returns the held-out images, not augmented, in batches of the recipe's size."""
        raise NotImplementedError
