"""Images of a plan, preprocessed once by tasks and kept in the object store."""

from collections.abc import Iterable, Sequence

from cluster.executor import Ref
from cluster.lanes import LIGHT
from orchestrator.graph import Graph
from orchestrator.plan import Plan
from tasks.coco.image_file import ImageFile
from tasks.coco.preprocess import preprocess_shard, shard_files
from tasks.latency.scene import SCENE_IMAGES
from tasks.steps import images as steps

SHARD_IMAGES = 64
"""Most images of a shard."""

CALIBRATION_SHARD_IMAGES = 16
"""Most calibration images of a shard."""

_PRIORITY = 0


class PreparedImages:
    """Refs to shards of preprocessed images; the pixels never come to the driver."""

    def __init__(self, plan: Plan, graph: Graph, shards: Sequence[tuple[ImageFile, ...]] | None = None) -> None:
        """Starts preprocessing the evaluation images.

        Args:
            plan: What is to be done.
            graph: Where the work goes; a damaged image ends its next `run` with a `DataMistake`.
            shards: The evaluation images in any order, cut in any way; by rising id and cut evenly if None.
        """
        self._plan, self._graph = plan, graph
        self._samples: dict[tuple[int, int], Ref] = {}
        if shards is None:
            images = plan.evaluation.images
            shards = shard_files(images, _shard_size(len(images), graph.executor.cpus))
        self.counts = [len(part) for part in shards]
        self.evaluation = self._prepared(f"images to evaluate of {plan.evaluation.fingerprint}", shards)

    def keep_scene(self) -> None:
        """Sees to it that the images that latency is measured on are in storage: the first ones by id."""
        plan = self._plan
        (first,) = self._prepared("images of the scene", (plan.evaluation.images[:SCENE_IMAGES],))
        self._graph.once(
            plan.scene_key, _PRIORITY, LIGHT, "preprocess", steps.keep_scene, plan.storage, plan.scene_key,
            plan.detector.spec, first, then=lambda result: None,
        )  # fmt: skip

    def calibration(self, samples: Iterable[tuple[int, int]]) -> list[Ref]:
        """Preprocesses every image of some calibration samples, each image once.

        Args:
            samples: (seed, size) of each sample.

        Returns:
            Refs to shards, small ones, since their work is heavier than inference.
        """
        wanted = {file.image_id: file for seed, size in samples for file in self._plan.sample(seed, size)}
        files = tuple(wanted[image_id] for image_id in sorted(wanted))
        if not files:
            return []
        share = -(-len(files) // (2 * max(self._graph.executor.cpus, 1)))
        return self._prepared("calibration images", shard_files(files, max(1, min(CALIBRATION_SHARD_IMAGES, share))))

    def sample(self, seed: int, size: int) -> Ref:
        """Preprocesses the beginning of a calibration sample as one shard, once a seed and size."""
        if (seed, size) not in self._samples:
            files = shard_files(self._plan.sample(seed, size), size)
            (self._samples[seed, size],) = self._prepared(f"{size} images of seed {seed}", files)
        return self._samples[seed, size]

    def _prepared(self, key: str, shards: Sequence[tuple[ImageFile, ...]]) -> list[Ref]:
        storage, size = self._plan.storage, self._plan.detector.spec.image_size
        cache = f"{storage.url}/images" if storage.is_local else None
        submit = self._graph.executor.submit
        refs = [submit(LIGHT, "preprocess", preprocess_shard, files, size, cache) for files in shards]
        # Its small result comes to the driver in place of the pixels, or the mistake that was found in them.
        self._graph.once(key, _PRIORITY, LIGHT, "preprocess", steps.shard_key, *refs, then=lambda result: None)
        return refs


def _shard_size(images: int, cpus: int) -> int:
    """Enough shards to keep every CPU busy with one variant, none larger than `SHARD_IMAGES`."""
    return max(1, min(SHARD_IMAGES, -(-images // max(cpus, 1))))
