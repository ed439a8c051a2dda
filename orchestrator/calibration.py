"""Calibration: statistics of activations, observed once an image and merged for each sample."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.executor import Ref
from cluster.lanes import LIGHT
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.plan import Plan
from tasks.steps import artifacts as steps
from tasks.types import Artifact, Failure

_PRIORITY = 1

Continuation = Callable[["Ref | Failure"], None]
"""Gets a ref to the statistics, or why there are none."""


@dataclass
class _Observed:
    """The statistics of every calibration image for one float artifact."""

    missing: int
    """Shards that are still being observed."""

    keys: dict[int, str] = field(default_factory=dict)
    """Keys of the statistics in storage, by image id."""

    failure: Failure | None = None
    waiting: list[tuple[int, int, Continuation]] = field(default_factory=list)
    """(seed, size, continuation) of the samples that are waited for."""


class Calibration:
    """Gathers statistics: each image is observed once for a float artifact, whatever samples it is in."""

    def __init__(self, plan: Plan, graph: Graph, images: PreparedImages, samples: set[tuple[int, int]]) -> None:
        """Starts preprocessing the calibration images.

        Args:
            plan: What is to be done.
            graph: Where the work goes.
            images: Where preprocessed images come from.
            samples: (seed, size) of every sample that will be asked for.
        """
        self._plan, self._graph = plan, graph
        self._shards = images.calibration(samples)
        self._observed: dict[str, _Observed] = {}
        self._gathered: dict[tuple[str, int, int], Ref] = {}

    def statistics(self, source: Artifact, seed: int, size: int, then: Continuation) -> None:
        """Gathers the statistics of a sample.

        Args:
            source: The float32 .tflite whose activations are observed.
            seed: Seed of the sample.
            size: Number of images.
            then: Gets a ref to the `Statistics`, or a `Failure`.
        """
        if source.sha256 not in self._observed:
            self._observe(source)
        observed = self._observed[source.sha256]
        if observed.missing:
            observed.waiting.append((seed, size, then))
        else:
            self._gather(source, observed, seed, size, then)

    def _observe(self, source: Artifact) -> None:
        observed = self._observed[source.sha256] = _Observed(len(self._shards))

        def take(result: dict[int, str] | Failure) -> None:
            observed.missing -= 1
            if isinstance(result, Failure):
                observed.failure = result
            else:
                observed.keys |= result
            if not observed.missing:
                for seed, size, then in observed.waiting:
                    self._gather(source, observed, seed, size, then)

        for index, shard in enumerate(self._shards):
            self._graph.once(
                f"observe {source.sha256} {index}", _PRIORITY, LIGHT, "calibrate", steps.observe_images,
                self._plan.storage, source, shard, then=take,
            )  # fmt: skip

    def _gather(self, source: Artifact, observed: _Observed, seed: int, size: int, then: Continuation) -> None:
        if observed.failure is not None:
            then(observed.failure)
            return
        name = (source.sha256, seed, size)
        if name in self._gathered:
            then(self._gathered[name])
            return

        def take(ref: Ref) -> None:
            self._gathered[name] = ref
            then(ref)

        keys = tuple(observed.keys[file.image_id] for file in self._plan.sample(seed, size))
        self._graph.once(
            f"gather {' '.join(map(str, name))}", _PRIORITY, LIGHT, "calibrate", steps.gather, self._plan.storage, keys,
            then=take, stays=True,
        )  # fmt: skip
