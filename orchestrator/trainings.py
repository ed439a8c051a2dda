"""Trainings of a plan: each done once, point by point of its learning curve, and ended when nobody waits for it."""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property

from cluster.executor import Ref
from cluster.lanes import LANES_BY_TRAINER
from orchestrator.graph import Graph
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from results.store import Store
from tasks.errors import TrainingStopped
from tasks.quantize.schemes import Qat
from tasks.steps import artifacts as steps
from tasks.training.trained import TRAINED_SUFFIX
from tasks.types import Failure, TrainingProgress, scheme_label

_PRIORITY = 6
"""After the other work of artifacts, accuracies and latencies: what they tell may make a training needless."""

Watch = Callable[[TrainingProgress], str | None]
"""Hears of each point of a learning curve; says why it waits no longer for the end, or None."""

Continuation = Callable[["TrainingProgress | Failure"], None]
"""Gets the end of a training, or why it has none."""


def patient(progress: TrainingProgress) -> str | None:
    """Waits for the end of a training, however it goes."""
    return None


@dataclass
class _Run:
    """A training that is under way."""

    key: str
    scheme: Qat
    statistics: Ref | None
    ranking: tuple[str, ...]
    waiting: list[tuple[Watch, Continuation]] = field(default_factory=list)
    point: int = 0


class Trainings:
    """Trains what the database does not know yet."""

    def __init__(self, plan: Plan, graph: Graph, store: Store, detector: Ref, observer: Observer) -> None:
        """Takes what trainings need.

        Args:
            plan: What is to be done.
            graph: Where the work goes.
            store: Where results go.
            detector: A ref to the detector.
            observer: Who wants to know how they go.
        """
        self._plan, self._graph, self._store, self._detector, self._observer = plan, graph, store, detector, observer
        self._runs: dict[str, _Run] = {}
        self._waiting: deque[_Run] = deque()
        self._width = graph.executor.training_width

    def train(
        self, scheme: Qat, statistics: Ref | None, ranking: tuple[str, ...], watch: Watch, then: Continuation
    ) -> None:
        """Asks for a training.

        Args:
            scheme: What is to be made of it.
            statistics: A ref to the statistics of calibration images, if the scheme has some.
            ranking: The layers, the most sensitive first, if the scheme needs them.
            watch: Hears of each point, the ones of an earlier run at once.
            then: Gets the progress at the end; a `Failure`, with the reason `training_stopped` if `watch` said so.
        """
        key = self._plan.training_key(scheme)
        known = self._known(key)
        if isinstance(known, Failure):
            then(known)
            return
        if known is not None and known.is_over:
            watch(known)
            then(known)
            return
        is_new = key not in self._runs
        run = self._runs.setdefault(key, _Run(key, scheme, statistics, ranking))
        run.waiting.append((watch, then))
        if is_new:
            self._observer.will_train(scheme_label(scheme))
            self._waiting.append(run)
            self._begin()

    def _begin(self) -> None:
        """Begins as many as run at a time: workers remember few trainings, and building one again takes seconds."""
        while self._waiting and len(self._runs) - len(self._waiting) < self._width:
            run = self._waiting.popleft()
            self._go_on(run)

    def _known(self, key: str) -> TrainingProgress | Failure | None:
        """What an earlier run has, if its file is still there."""
        known = self._store.training_of(key)
        if not isinstance(known, TrainingProgress) or not known.is_over:
            return known
        return known if self._plan.storage.has(known.trained_sha256, TRAINED_SUFFIX) else None

    @cached_property
    def _images(self) -> Ref:
        assert self._plan.training is not None
        return self._graph.executor.put(self._plan.training)

    def _go_on(self, run: _Run) -> None:
        lane = LANES_BY_TRAINER[run.scheme.trainer]
        self._graph.once(
            f"training {run.key} {run.point}", _PRIORITY, lane, "train", steps.train, self._plan.storage, run.key,
            run.scheme, self._plan.recipe(run.scheme), self._detector, self._images, run.statistics, run.ranking,
            run.point, then=lambda result: self._take(run, result),
        )  # fmt: skip

    def _take(self, run: _Run, result: TrainingProgress | Failure) -> None:
        if isinstance(result, Failure):
            self._store.put_failure(run.key, result)
            self._end(run, result)
            return
        self._observer.trained(scheme_label(run.scheme), result)
        reasons = [watch(result) for watch, _ in run.waiting]
        because = reasons[0] if all(reasons) and not result.is_over else None
        self._put(run, result, because)
        if result.is_over:
            self._end(run, result)
        elif because is not None:
            self._end(run, Failure.of("train", TrainingStopped(because)))
        else:
            run.point = len(result.points)
            self._go_on(run)

    def _put(self, run: _Run, progress: TrainingProgress, because: str | None) -> None:
        plan = self._plan
        assert plan.training is not None
        self._store.put_training(
            run.key, plan.detector.sha256, run.scheme.trainer, asdict(plan.recipe(run.scheme)),
            plan.training.fingerprint, plan.training_versions(run.scheme), progress, because,
        )  # fmt: skip

    def _end(self, run: _Run, result: TrainingProgress | Failure) -> None:
        del self._runs[run.key]
        self._observer.ended_training(scheme_label(run.scheme))
        for _, then in run.waiting:
            then(result)
        self._begin()
