"""Recipes: how a detector is trained, whatever the framework."""

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from tasks.detector.loss import LossSettings

Optimizer = Literal["adamw", "sgd"]
"""`adamw`: Loshchilov and Hutter 2019, betas .9 and .999; `sgd`: with Nesterov momentum .9."""

MOST_EPOCHS = MOST_BATCH_IMAGES = 10**6
"""Far more than any training has; databases can hold them, and learning curves count them."""

SEEDS = 2**32
"""Seeds are below this: all frameworks take those."""

MOST_HELD_OUT = 512
"""Images kept apart at most: they stay in memory, and more of them say little more."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to the training images, the same for every framework."""

    mirror: float = 0.5
    """Share of the images that are flipped left to right."""

    crop: float = 0.5
    """Share of the images of which a random part is taken: SSD's `ssd_random_crop`."""

    colour: float = 0.5
    """Share of the images whose brightness, contrast, saturation and hue are changed."""


NO_AUGMENTATION = Augmentation(mirror=0.0, crop=0.0, colour=0.0)
"""Images as the evaluation sees them."""


@dataclass(frozen=True)
class Recipe:
    """How a detector is trained."""

    epochs: int
    """How often each training image is seen; 0 trains nothing."""

    learning_rate: float
    """Peak of the rate: reached after a linear warm-up, then a cosine down to 0."""

    batch_size: int = 8
    """Images an update."""

    optimizer: Optimizer = "adamw"
    """Who makes updates of gradients."""

    weight_decay: float = 1e-4
    """Decoupled weight decay of kernels (not of biases), a share of the learning rate; used by both optimizers."""

    warm_up: float = 0.05
    """Share of the updates over which the learning rate rises, in [0, 1)."""

    largest_gradient: float = 10.0
    """Gradients of a greater global norm are scaled down to it."""

    distillation_weight: float = 0.0
    """Share of the float teacher's answers in the loss, in [0, 1]; the rest is that of the labels. 1 needs none."""

    freeze_point: float = 1.0
    """Share of the updates after which the ranges of activations stay as they are, in [0, 1]."""

    held_out: float = 0.1
    """Share of the training images that are kept apart to see when training stops helping, in (0, .5]; one image at
    least, `MOST_HELD_OUT` at most."""

    patience: int | None = 6
    """Points of the learning curve without a better held-out loss after which training ends; None for no limit."""

    points: int = 16
    """Points of the learning curve after the first, at equal distances; the work of one is a task of its own."""

    seed: int = 0
    """Seed of the order and the augmentation of images, and of first weights. The held-out images are the same for all
    seeds, so that trainings that differ there can be compared by their losses."""

    loss: LossSettings = field(default_factory=LossSettings)
    """What a wrong answer costs."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    """What is done to the images."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{item.name} is {value}; it must be a finite number")
        rules = {
            "epochs": (0 <= self.epochs <= MOST_EPOCHS, f"at least 0 and at most {MOST_EPOCHS}"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "batch_size": (1 <= self.batch_size <= MOST_BATCH_IMAGES, f"at least 1 and at most {MOST_BATCH_IMAGES}"),
            "optimizer": (self.optimizer in get_args(Optimizer), f"one of {', '.join(get_args(Optimizer))}"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "warm_up": (0 <= self.warm_up < 1, "in [0, 1)"),
            "largest_gradient": (self.largest_gradient > 0, "above 0"),
            "distillation_weight": (0 <= self.distillation_weight <= 1, "in [0, 1]"),
            "freeze_point": (0 <= self.freeze_point <= 1, "in [0, 1]"),
            "held_out": (0 < self.held_out <= 0.5, "in (0, .5]"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1"),
            "points": (self.points >= 1, "at least 1"),
            "seed": (0 <= self.seed < SEEDS, f"at least 0 and below {SEEDS}"),
        }
        for name, (is_kept, rule) in rules.items():
            if not is_kept:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {rule}")

    def held_out_images(self, images: int) -> int:
        """Returns how many of the training images are kept apart.

        Args:
            images: All training images, two at least.
        """
        return max(1, min(MOST_HELD_OUT, round(self.held_out * images)))

    def steps(self, images: int) -> int:
        """Returns the number of updates.

        Args:
            images: All training images, those kept apart included.
        """
        return self.epochs * math.ceil((images - self.held_out_images(images)) / self.batch_size)

    def point_steps(self, images: int) -> tuple[int, ...]:
        """Returns the updates done at each point of the learning curve, from 0 on, rising.

        Args:
            images: All training images.
        """
        steps = self.steps(images)
        return tuple(dict.fromkeys(round(steps * point / self.points) for point in range(self.points + 1)))

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate of an update.

        Args:
            step: Its number, from 0.
            steps: Number of updates of the training.
        """
        rising = max(1, round(self.warm_up * steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def is_observing(self, step: int, steps: int) -> bool:
        """Tells whether an update may still move the ranges of activations."""
        return step < self.freeze_point * steps
