"""The order that a search infers images in: shuffled by a seed, cut into rungs, and these into shards."""

import itertools
from dataclasses import dataclass

from orchestrator.images import SHARD_IMAGES
from orchestrator.search.rungs import Rung
from tasks.coco.dataset import Dataset, calibration_order
from tasks.coco.image_file import ImageFile

SMALLEST_SHARD = 4
"""Images of a shard, at least, where a rung has more: opening a session costs as much as a few inferences."""


@dataclass(frozen=True)
class ImageOrder:
    """The evaluation images as a search infers them. Rungs are nested: a rung ends where a shard ends."""

    shards: tuple[tuple[ImageFile, ...], ...]
    """Every image once, in order."""

    @classmethod
    def of(cls, dataset: Dataset, seed: int, rungs: tuple[Rung, ...], cpus: int) -> "ImageOrder":
        """Shuffles and cuts.

        Args:
            dataset: The evaluation images.
            seed: Seed of the order, at least 0.
            rungs: The looks at a candidate; the last one is of all images.
            cpus: CPUs that infer.

        Returns:
            The order: in every rung, enough shards of the images that it adds for every CPU, none of more than
            `orchestrator.images.SHARD_IMAGES`.
        """
        files = {file.image_id: file for file in dataset.images}
        ordered = [files[image_id] for image_id in calibration_order(dataset.ids, seed)]
        starts = (0, *(rung.images for rung in rungs))
        parts = [ordered[start:end] for start, end in itertools.pairwise(starts)]
        return cls(tuple(shard for part in parts for shard in _cut(part, cpus)))

    def within(self, images: int) -> range:
        """Tells which shards hold the first images.

        Args:
            images: Images of a rung.

        Returns:
            Positions in `shards`.

        Raises:
            ValueError: If no shard ends there.
        """
        total = 0
        for position, shard in enumerate(self.shards):
            if total == images:
                return range(position)
            total += len(shard)
        if total != images:
            raise ValueError(f"no shard ends at image {images}")
        return range(len(self.shards))


def _cut(images: list[ImageFile], cpus: int) -> list[tuple[ImageFile, ...]]:
    """Cuts images into shards of nearly equal sizes."""
    count = max(1, -(-len(images) // SHARD_IMAGES), min(cpus, len(images) // SMALLEST_SHARD))
    ends = [len(images) * number // count for number in range(count + 1)]
    return [tuple(images[start:end]) for start, end in itertools.pairwise(ends)]
