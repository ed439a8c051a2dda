"""Training of the demo's detector on synthetic scenes, from scratch: `python -m tasks.detector.train --help`."""

import argparse
import json
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.coco.dataset import load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.coco.synthetic import CATEGORIES, render, write_synthetic
from tasks.detect import detect_shard
from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector
from tasks.score import merge, score
from tasks.training.learner import Batch
from tasks.training.recipe import Recipe
from tasks.training.targets import BACKGROUND, assign
from tasks.types import Postprocessing, RuntimeSettings

if TYPE_CHECKING:
    from tasks.detector.scratch_learner import ScratchLearner

DEMO_SPEC = SSDMobileNetV1Spec(
    depth_multiplier=0.25,
    image_size=144,
    class_ids=tuple(CATEGORIES),
    class_names=tuple(CATEGORIES.values()),
    anchors=AnchorSpec(min_scale=0.1, max_scale=0.8, aspect_ratios=(1.0, 2.0, 0.5), reduce_boxes_in_lowest_layer=False),
    min_depth=8,
    source_blocks=(5, 11, 13),
    extra_depths=(384, 256),
)
"""The demo's architecture: small enough for a repository, with a stride of 8 pixels for the small objects."""

CALIBRATION_SEED = 1
"""Seed of the demo's calibration images, which training must not see."""

EVALUATION_SEED = 2
"""Seed of the demo's evaluation images, which training must not see."""

EVALUATION_IMAGES = 200
"""Number of the demo's evaluation images."""

_WARM_UP = 0.03
_STATISTICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
               "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")  # fmt: skip
_PACKAGES = ("tensorflow", "tf-keras", "numpy", "opencv-python-headless", "pillow", "pycocotools")


@dataclass(frozen=True)
class DemoRecipe:
    """How the demo's detector is trained."""

    steps: int = 12000
    """Number of updates."""

    seed: int = 0
    """Seed of the images, the first weights and the order of the batches."""

    images: int = 10000
    """Number of distinct scenes; each is seen mirrored and with its colour channels swapped, too."""

    batch_size: int = 16
    """Images an update."""

    learning_rate: float = 3e-3
    """Peak of the rate of AdamW: reached after a linear warm-up, then a cosine down to 0."""

    weight_decay: float = 1e-3
    """Decoupled weight decay, on all weights but those of batch norm and the biases."""

    largest_gradient: float = 10.0
    """Gradients of a greater global norm are scaled down to it."""

    @property
    def shared(self) -> Recipe:
        """The recipe of optimizer, schedule and loss.

        The loss is focal: from scratch, hard negatives would be ranked by a loss that means nothing yet.
        """
        return Recipe(
            epochs=math.ceil(self.steps * self.batch_size / self.images),
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            warm_up=_WARM_UP,
            largest_gradient=self.largest_gradient,
            seed=self.seed,
        )


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Scenes in memory, resized to the detector's input."""

    pixels: np.ndarray
    """(N, S, S, 3) uint8 RGB."""

    boxes: tuple[np.ndarray, ...]
    """For each image (objects, 4) float32 [ymin, xmin, ymax, xmax] as shares of the image side."""

    columns: tuple[np.ndarray, ...]
    """For each image (objects,) int32 score columns."""


def render_images(spec: SSDMobileNetV1Spec, seed: int, images: int, workers: int = 1) -> TrainingImages:
    """Renders synthetic scenes for training.

    Args:
        spec: The architecture, whose `class_ids` are those of the synthetic categories.
        seed: Seed of the set.
        images: Number of scenes.
        workers: Processes to render with; the result does not depend on it.

    Returns:
        The scenes, resized as the evaluation resizes them (PIL, bilinear with antialiasing).
    """
    one = partial(_render_resized, spec, seed)
    if workers == 1:
        made = [one(index) for index in range(images)]
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            made = list(pool.map(one, range(images), chunksize=64))
    pixels, boxes, columns = zip(*made, strict=True)
    return TrainingImages(np.stack(pixels), boxes, columns)


def _render_resized(spec: SSDMobileNetV1Spec, seed: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from PIL import Image

    pixels, boxes, category_ids = render(seed, index)
    side = spec.image_size
    small = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
    height, width = pixels.shape[:2]
    corners = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 1] + boxes[:, 3], boxes[:, 0] + boxes[:, 2]], axis=1)
    column_of = {category_id: column for column, category_id in enumerate(spec.class_ids)}
    columns = np.array([column_of[int(category_id)] for category_id in category_ids], np.int32)
    return small, (corners / [height, width, height, width]).astype(np.float32), columns


def batches(images: TrainingImages, places: np.ndarray, recipe: DemoRecipe) -> Iterator[Batch]:
    """Draws training batches, the same ones for the same recipe: mirrored at times, the colour channels swapped.

    Args:
        images: The scenes.
        places: (A, 4) float [ycenter, xcenter, height, width] anchors as shares of the image side.
        recipe: Seed, batch size and number of steps.

    Yields:
        The batch of each step.
    """
    random = np.random.default_rng((recipe.seed, 1))
    order = _endless_order(len(images.pixels), random)
    matches_of = cache(partial(_matches, images, places))
    for _ in range(recipe.steps):
        pixels = np.empty((recipe.batch_size, *images.pixels.shape[1:]), np.uint8)
        codes = np.zeros((recipe.batch_size, len(places), 4), np.float32)
        columns = np.full((recipe.batch_size, len(places)), BACKGROUND, np.int32)
        for row in range(recipe.batch_size):
            index, is_mirrored, channels = next(order), bool(random.random() < 0.5), random.permutation(3)
            pixels[row] = images.pixels[index, :, :: -1 if is_mirrored else 1][..., channels]
            matched, codes_of_matched, columns_of_matched = matches_of(index, is_mirrored)
            codes[row, matched], columns[row, matched] = codes_of_matched, columns_of_matched
        yield Batch(pixels, codes, columns)


def _matches(
    images: TrainingImages, places: np.ndarray, index: int, is_mirrored: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the matched anchors of one image, their codes and columns: little enough to keep for every epoch."""
    boxes = images.boxes[index]
    if is_mirrored:
        boxes = np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], axis=1)
    targets = assign(boxes, images.columns[index], places)
    matched = np.flatnonzero(targets.columns != BACKGROUND)
    return matched, targets.codes[matched], targets.columns[matched]


def _endless_order(count: int, random: np.random.Generator) -> Iterator[int]:
    while True:
        yield from random.permutation(count)


def train(spec: SSDMobileNetV1Spec, images: TrainingImages, recipe: DemoRecipe) -> "ScratchLearner":
    """Trains a detector from scratch. Sets the global seeds and makes TensorFlow's operations deterministic.

    Args:
        spec: The architecture.
        images: What to train on.
        recipe: How.

    Returns:
        The learner after the last update. Equal arguments on one machine give equal weights.
    """
    from tasks.detector.scratch_learner import ScratchLearner

    learner, shared, recent = ScratchLearner(spec, recipe.shared), recipe.shared, []
    for step, batch in enumerate(batches(images, anchors(spec), recipe)):
        losses = learner.step(batch, shared.learning_rate_at(step, recipe.steps), is_observing=True)
        recent.append((losses.box, losses.score))
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            box_loss, score_loss = np.mean(recent, axis=0)
            print(f"step {step + 1} of {recipe.steps}: boxes {box_loss:.4f}, scores {score_loss:.4f}", flush=True)
            recent.clear()
    return learner


def evaluate(detector: Detector, images: int, seed: int) -> tuple[float, ...]:
    """Scores a detector on a synthetic set, written to disk and read back as any set is.

    Args:
        detector: What to score; its Keras build is run.
        images: Number of images.
        seed: Seed of the set.

    Returns:
        The 12 COCO statistics, by pycocotools.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = write_synthetic(Path(folder), images, seed)
        dataset = load_dataset(written.images, written.annotations)
        shard = preprocess_shard(dataset.images, detector.spec.image_size, cache=None)
        found = detect_shard(detector.to_bytes(), RuntimeSettings("keras"), detector.spec, shard, Postprocessing())
        return score(dataset.ground_truth(), merge([found]), "pycocotools").statistics


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the demo's detector, scores it and writes it with a record of how it was made.

    Args:
        arguments: The command line, without the program's name; None for that of the process.
    """
    usage = "Train the demo's detector on synthetic scenes, from scratch, on the CPU."
    parser = argparse.ArgumentParser(prog="python -m tasks.detector.train", description=usage)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file; the record goes beside it")
    parser.add_argument("--steps", type=int, default=DemoRecipe.steps, help="updates (default %(default)s)")
    parser.add_argument("--seed", type=int, default=DemoRecipe.seed, help="seed of everything (default %(default)s)")
    parser.add_argument("--images", type=int, default=DemoRecipe.images, help="distinct scenes (default %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    chosen = parser.parse_args(arguments)
    if chosen.seed in (CALIBRATION_SEED, EVALUATION_SEED):
        parser.error(f"--seed is {chosen.seed}: that is the seed of the demo's calibration or evaluation images")
    recipe = DemoRecipe(steps=chosen.steps, seed=chosen.seed, images=chosen.images)
    # TensorFlow reads it when it is imported, and the Keras 2 layers need it.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    start = time.perf_counter()
    images = render_images(DEMO_SPEC, recipe.seed, recipe.images, chosen.workers)
    rendered = time.perf_counter()
    print(f"rendered {recipe.images} scenes in {rendered - start:.0f} s", flush=True)
    detector = train(DEMO_SPEC, images, recipe).detector()
    trained = time.perf_counter()
    write(detector, recipe, chosen.out, {"rendering": rendered - start, "training": trained - rendered})


def write(detector: Detector, recipe: DemoRecipe, out: Path, seconds: dict[str, float]) -> None:
    """Scores a trained detector and writes it, with a record of how it was made beside it.

    Args:
        detector: The detector.
        recipe: How it was trained.
        out: The safetensors file; the record is `STEM_training.json` in the same folder.
        seconds: Wall time of each part of the work.
    """
    statistics = evaluate(detector, EVALUATION_IMAGES, EVALUATION_SEED)
    command = f"python -m tasks.detector.train --steps {recipe.steps} --seed {recipe.seed} --images {recipe.images}"
    record = {
        "command": f"{command} --out {out.name}",
        "recipe": asdict(recipe),
        "seconds": {part: round(value) for part, value in seconds.items()},
        "evaluation": {"images": EVALUATION_IMAGES, "seed": EVALUATION_SEED},
        "statistics": dict(zip(_STATISTICS, (round(value, 4) for value in statistics), strict=True)),
        "parameters": sum(layer.parameters for layer in layers(detector.spec)),
        "macs": sum(layer.macs for layer in layers(detector.spec)),
        "sha256": detector.sha256,
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in _PACKAGES},
    }
    out.write_bytes(detector.to_bytes())
    out.with_name(f"{out.stem}_training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["statistics"]))


if __name__ == "__main__":
    main()
