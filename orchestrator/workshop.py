"""The workshop: what sweeps and studies have measured with, on one executor."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cluster.executor import Executor, Ref, refuse_threads
from orchestrator.accuracies import Accuracies
from orchestrator.artifacts import Artifacts, known_artifact, ranked_by
from orchestrator.calibration import Calibration
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.latencies import Latencies, benchmark_host
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from orchestrator.sensitivity import Sensitivities
from orchestrator.trainings import Trainings
from results.store import Store
from results.sweep_record import SweepRecord
from tasks.coco.dataset import Dataset
from tasks.coco.image_file import ImageFile
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.quantize.artifact import observed_by
from tasks.quantize.schemes import Scheme
from tasks.types import Host, Variant


@dataclass
class Gate:
    """Work that waits for a result of the reference."""

    is_open: bool = False
    """Whether the result is there."""

    _waiting: list[Callable[[], None]] = field(default_factory=list)

    def after(self, work: Callable[[], None]) -> None:
        """Does the work now, or as soon as the gate opens."""
        if self.is_open:
            work()
        else:
            self._waiting.append(work)

    def open(self) -> None:
        """Lets everything through."""
        self.is_open = True
        for work in self._waiting:
            work()
        self._waiting.clear()


@dataclass(frozen=True, eq=False)
class Workshop:
    """Everything that makes, scores and times, ready to be asked. Made by `open_workshop`."""

    plan: Plan
    """What is to be done, for the instruction set of the node that times."""

    store: Store
    """The database."""

    record: SweepRecord
    """The sweep or study in it."""

    observer: Observer
    """Who wants to know."""

    graph: Graph
    """Where the work goes."""

    host: Host
    """The benchmark node."""

    images: PreparedImages
    """Preprocessed evaluation images."""

    detector: Ref
    """The detector."""

    truth: Ref
    """The annotations of the evaluation images."""

    accuracies: Accuracies
    """Scores."""

    latencies: Latencies
    """Times."""

    sensitivities: Sensitivities
    """Ranks layers."""

    artifacts: Artifacts
    """Makes."""

    plan_elsewhere: Plan | None
    """The same plan on the confirmation images, if there are some."""

    images_elsewhere: PreparedImages | None
    """Those images, preprocessed."""


MakeAccuracies = Callable[[Plan, Graph, Store, Ref, PreparedImages, Observer], Accuracies]
"""Makes the part of a workshop that scores."""


def open_workshop(
    plan: Plan,
    record: SweepRecord,
    store: Store,
    executor: Executor,
    observer: Observer,
    variants: Iterable[Variant],
    analysed: Sequence[Scheme] = (),
    shards: Sequence[tuple[ImageFile, ...]] | None = None,
    scoring: MakeAccuracies = Accuracies,
) -> Workshop:
    """Prepares images and notes the sweep or study in the database.

    Args:
        plan: What is to be done.
        record: The sweep or study.
        store: The database.
        executor: Where tasks run.
        observer: Who wants to know.
        variants: Variants whose artifacts may be asked for.
        analysed: Schemes whose sensitivities will be asked for.
        shards: The evaluation images in the order in which they are inferred; see `PreparedImages`.
        scoring: Makes what scores.

    Returns:
        The workshop.

    Raises:
        DataMistake: If an image is damaged; nothing has been written then.
        ClusterMistake: If the benchmark node does not answer, or has too few CPUs.
    """
    observer.stage("asking the benchmark node what it is")
    refuse_threads(executor, [variant.settings.threads for variant in plan.spec.space.variants])
    host = benchmark_host(executor)
    plan, graph = replace(plan, isa=host.isa), Graph(executor)
    observer.stage("preparing images")
    images = PreparedImages(plan, graph, shards)
    images.keep_scene()
    elsewhere = replace(plan, evaluation=plan.confirmation, confirmation=None) if plan.confirmation else None
    images_elsewhere = PreparedImages(elsewhere, graph) if elsewhere else None
    unmade = _unmade(plan, store, variants)
    calibration = Calibration(plan, graph, images, _observed_samples(unmade, analysed))
    for seed, size in _image_samples(unmade):
        images.sample(seed, size)
    # A damaged image ends it here, before anything is written.
    graph.run()
    _begin(plan, record, store)
    detector, truth = executor.put(plan.detector), executor.put(plan.evaluation.ground_truth())
    latencies = Latencies(plan, graph, store, host, observer)
    accuracies = scoring(plan, graph, store, truth, images, observer)
    sensitivities = Sensitivities(plan, graph, store, detector, truth, images, accuracies)
    trainings = Trainings(plan, graph, store, detector, observer)
    artifacts = Artifacts(plan, graph, store, detector, images, calibration, sensitivities, trainings)
    return Workshop(
        plan, store, record, observer, graph, host, images, detector, truth, accuracies, latencies, sensitivities,
        artifacts, elsewhere, images_elsewhere,
    )  # fmt: skip


def _unmade(plan: Plan, store: Store, variants: Iterable[Variant]) -> list[Scheme]:
    """Schemes whose artifacts must be made."""
    schemes = dict.fromkeys(variant.scheme for variant in variants)
    return [scheme for scheme in schemes if known_artifact(plan, store, plan.request_key(scheme)) is None]


def _observed_samples(unmade: list[Scheme], analysed: Sequence[Scheme]) -> set[tuple[int, int]]:
    """Seed and size of every calibration sample whose statistics will be asked for."""
    schemes = [*unmade, *analysed]
    schemes += [ranked_by(scheme) for scheme in schemes if scheme.needs_ranking]
    return _samples(scheme for scheme in schemes if observed_by(scheme) is not None)


def _image_samples(unmade: list[Scheme]) -> set[tuple[int, int]]:
    """Seed and size of every calibration sample that a toolchain wants to see itself."""
    return _samples(scheme for scheme in unmade if scheme.is_calibrated and observed_by(scheme) is None)


def _samples(schemes: Iterable[Scheme]) -> set[tuple[int, int]]:
    axes = [scheme.axes() for scheme in schemes]
    return {(each["calibration_seed"], each["calibration_images"]) for each in axes}


def _begin(plan: Plan, record: SweepRecord, store: Store) -> None:
    table = layers(plan.detector.spec)
    totals = sum(layer.parameters for layer in table), sum(layer.macs for layer in table)
    store.put_detector(plan.detector.sha256, plan.detector_name, plan.detector.spec, *totals)
    for dataset in (plan.evaluation, plan.confirmation):
        if dataset is not None:
            _put_dataset(store, dataset)
    store.begin_sweep(record)


def _put_dataset(store: Store, dataset: Dataset) -> None:
    store.put_dataset(
        dataset.fingerprint, dataset.name, len(dataset), dataset.categories, str(dataset.annotations_path)
    )
