"""The sweep: every variant of a plan through the task graph, every result into the database as it comes."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from cluster.executor import Executor, Ref
from cluster.lanes import BENCHMARK, LANES_BY_FRAMEWORK, LIGHT
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from orchestrator.space import REFERENCE
from results.queries import leaderboard
from results.store import Store
from results.sweep_record import SweepRecord, variant_key
from tasks import steps
from tasks.benchmark import BenchmarkOptions
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import ClusterMistake
from tasks.host import this_host
from tasks.identity import key_of
from tasks.quantize.artifact import toolchain_versions
from tasks.quantize.builders import builder_of
from tasks.quantize.schemes import Scheme
from tasks.runtimes.base import runtime_of
from tasks.types import Accuracy, Artifact, Failure, Host, Latency, RuntimeSettings, Variant

_CALIBRATE, _BUILD, _SCORE, _DETECT, _MEASURE = range(1, 6)


@dataclass
class _Run:
    """How far one variant is."""

    variant: Variant
    """The variant."""

    request_key: str
    """Key of its artifact request."""

    artifact: Artifact | None = None
    accuracy_key: str | None = None
    accuracy: Accuracy | None = None
    latency_key: str | None = None
    latency: Latency | None = None
    failure: tuple[str, Failure] | None = None
    """Key and failure of the first step that failed."""

    awaited: int = 2
    """Results still missing: accuracy and latency."""


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep did."""

    sweep_key: str
    """The sweep in the database."""

    submitted: int
    """Tasks that were run for it this time."""

    failed: int
    """Variants without a result."""


def record_of(plan: Plan) -> SweepRecord:
    """Describes a plan to the database.

    Args:
        plan: What is to be done.

    Returns:
        The record, whose key names the sweep.
    """
    budget = plan.spec.budget
    return SweepRecord(
        name=plan.spec.name,
        spec=plan.spec.text,
        detector_sha256=plan.detector.sha256,
        dataset_fingerprint=plan.evaluation.fingerprint,
        variants=plan.spec.space.variants,
        reference=REFERENCE,
        artifacts_url=plan.storage.url,
        provenance=plan.provenance,
        budget_metric=budget.metric if budget else None,
        budget_max_loss=budget.limit if budget else None,
        budget_relative=budget.is_relative if budget else False,
    )


class Sweep:
    """One run of a plan on an executor."""

    def __init__(self, plan: Plan, engine: Engine, observer: Observer) -> None:
        """Finds out what is left to do.

        Args:
            plan: What is to be done.
            engine: A database that can be written to, of `results.connect.open_database`.
            observer: Who wants to know.
        """
        self._plan, self._engine, self._store, self._observer = plan, engine, Store(engine), observer
        self._record = record_of(plan)
        self.key = self._record.key
        statuses = self._store.statuses(self.key)
        self.unsettled = tuple(
            variant
            for variant, key in zip(plan.spec.space.variants, self._record.variant_keys, strict=True)
            if statuses.get(key) != "done" and not (statuses.get(key) == "failed" and self._is_final(variant))
        )

    def _is_final(self, variant: Variant) -> bool:
        """Whether a failure of the variant is kept, so that trying again would only give it again."""
        made = self._store.artifact_of(self._plan.request_key(variant.scheme))
        if isinstance(made, Artifact):
            return isinstance(self._store.accuracy_of(self._plan.accuracy_key(made, variant.settings)), Failure)
        return isinstance(made, Failure)

    def run(self, executor: Executor) -> SweepOutcome:
        """Runs what is left.

        Args:
            executor: Where tasks run.

        Returns:
            What was done.

        Raises:
            DataMistake: If an image is damaged.
        """
        self._executor, self._graph = executor, Graph(executor)
        variants = self._plan.spec.space.variants
        self._observer.began(len(variants), len(variants) - len(self.unsettled), len(self._plan.evaluation))
        self._runs = {variant: _Run(variant, self._plan.request_key(variant.scheme)) for variant in self.unsettled}
        self._reference = _Run(REFERENCE, self._plan.request_key(REFERENCE.scheme))
        self._waiting_for_reference: list[_Run] = []
        self._evaluating: dict[str, list[_Run]] = {}
        self._prepare_images()
        self._begin()
        self._host = self._benchmark_host()
        self._detector_ref = executor.put(self._plan.detector)
        self._truth_ref = executor.put(self._plan.evaluation.ground_truth())
        self._observer.stage("building, scoring and timing")
        for run in (self._reference, *self._runs.values()):
            self._request(run)
        self._graph.run()
        self._confirm_best()
        self._store.finish_sweep(self.key)
        return SweepOutcome(
            self.key, self._graph.submitted, sum(run.failure is not None for run in self._runs.values())
        )

    def _begin(self) -> None:
        plan, store = self._plan, self._store
        table = layers(plan.detector.spec)
        totals = sum(layer.parameters for layer in table), sum(layer.macs for layer in table)
        store.put_detector(plan.detector.sha256, plan.detector_name, plan.detector.spec, *totals)
        evaluation = plan.evaluation
        store.put_dataset(
            evaluation.fingerprint,
            evaluation.name,
            len(evaluation),
            evaluation.categories,
            str(evaluation.annotations_path),
        )
        store.begin_sweep(self._record)

    def _benchmark_host(self) -> Host:
        if self._executor.is_here:
            return this_host()
        self._observer.stage("asking the benchmark node what it is")
        ref = self._executor.submit(BENCHMARK, "host", this_host)
        host = self._executor.result(self._executor.wait([ref]))
        if isinstance(host, Failure):
            raise ClusterMistake(f"the benchmark node did not answer: {host.message}")
        assert isinstance(host, Host)
        return host

    def _prepare_images(self) -> None:
        """Preprocesses all images that will be needed; a damaged one ends the sweep before it begins."""
        self._observer.stage("preparing images")
        self._images = PreparedImages(self._plan, self._graph)
        for run in self._runs.values():
            axes = run.variant.scheme.axes()
            if "calibration_seed" in axes and self._made(run) is None:
                self._images.sample(axes["calibration_seed"], self._sizes(run.variant.scheme)[-1])
        self._graph.run()

    # Artifacts

    def _made(self, run: _Run) -> Artifact | Failure | None:
        """What an earlier run made, if its file is still there."""
        known = self._store.artifact_of(run.request_key)
        is_gone = isinstance(known, Artifact) and not self._plan.storage.has(known.sha256, known.format)
        return None if is_gone else known

    def _request(self, run: _Run) -> None:
        known = self._made(run)
        if known is not None:
            self._take_artifact(run, known)
            return
        scheme = run.variant.scheme
        builder = builder_of(scheme)
        lane = LANES_BY_FRAMEWORK[builder.framework]

        def build(calibrations: object) -> None:
            self._graph.once(
                run.request_key, _BUILD, lane, "quantize", steps.build, self._detector_ref, scheme, calibrations,
                self._plan.storage, then=lambda result: self._take_built(run, result),
            )  # fmt: skip

        if builder.calibrate is None:
            build(None)
            return
        seed, sizes = scheme.axes()["calibration_seed"], self._sizes(scheme)
        key = key_of("calibrate", builder.calibrate.__module__, builder.calibrate.__qualname__, seed)
        self._graph.once(
            key, _CALIBRATE, lane, "calibrate", steps.calibrate_sample, self._detector_ref, scheme, sizes,
            *self._images.sample(seed, sizes[-1]), then=build,
        )  # fmt: skip

    def _sizes(self, scheme: Scheme) -> tuple[int, ...]:
        all_axes = [variant.scheme.axes() for variant in self._runs]
        seed = scheme.axes()["calibration_seed"]
        return tuple(sorted({axes["calibration_images"] for axes in all_axes if axes.get("calibration_seed") == seed}))

    def _take_built(self, run: _Run, result: steps.Built | Failure) -> None:
        if isinstance(result, Failure):
            self._store.put_failure(run.request_key, result)
            self._take_artifact(run, result)
            return
        versions = toolchain_versions(builder_of(run.variant.scheme))
        self._store.put_artifact(
            run.request_key, self._plan.detector.sha256, run.variant.scheme, versions, result.artifact, result.seconds
        )
        self._take_artifact(run, result.artifact)

    def _take_artifact(self, run: _Run, result: Artifact | Failure) -> None:
        if isinstance(result, Failure):
            run.failure = (run.request_key, result)
        else:
            run.artifact = result
        if run is self._reference:
            for other in self._waiting_for_reference:
                self._measure(other)
            return
        if run.failure is not None:
            self._settle(run)
            return
        self._evaluate(run)
        if self._reference.artifact is None and self._reference.failure is None:
            self._waiting_for_reference.append(run)
        else:
            self._measure(run)

    # Accuracy

    def _evaluate(self, run: _Run) -> None:
        assert run.artifact is not None
        run.accuracy_key = self._plan.accuracy_key(run.artifact, run.variant.settings)
        known = self._store.accuracy_of(run.accuracy_key)
        if known is not None:
            self._take_accuracy(run, known)
            return
        sharing = self._evaluating.setdefault(run.accuracy_key, [])
        sharing.append(run)
        if len(sharing) == 1:
            self._detect(run.accuracy_key, run.artifact, run.variant.settings)

    def _detect(self, key: str, artifact: Artifact, settings: RuntimeSettings) -> None:
        plan, images = self._plan, self._images
        lane = LANES_BY_FRAMEWORK[runtime_of(settings.runtime).framework]
        shards: list[Ref] = []

        def take(count: int, shard: Ref) -> None:
            shards.append(shard)
            self._observer.inferred(count)
            if len(shards) == len(images.evaluation):
                self._graph.once(
                    f"score {key}", _SCORE, LIGHT, "score", steps.score_shards, plan.storage, self._truth_ref, *shards,
                    then=scored,
                )  # fmt: skip

        def scored(result: Accuracy | Failure) -> None:
            for run in self._evaluating.pop(key):
                self._take_scored(run, result)

        for index, (part, count) in enumerate(zip(images.evaluation, images.counts, strict=True)):
            self._graph.once(
                f"detect {key} {index}", _DETECT, lane, "detect", steps.detect, plan.storage, artifact, settings,
                plan.detector.spec, plan.spec.postprocessing, part, then=partial(take, count), stays=True,
            )  # fmt: skip

    def _take_scored(self, run: _Run, result: Accuracy | Failure) -> None:
        assert run.artifact is not None and run.accuracy_key is not None
        if isinstance(result, Failure):
            self._store.put_failure(run.accuracy_key, result)
        else:
            fingerprint, settings = self._plan.evaluation.fingerprint, self._plan.scoring(run.variant.settings)
            self._store.put_accuracy(run.accuracy_key, run.artifact.sha256, fingerprint, result, settings)
        self._take_accuracy(run, result)

    def _take_accuracy(self, run: _Run, result: Accuracy | Failure) -> None:
        assert run.accuracy_key is not None
        if isinstance(result, Failure):
            run.failure = run.failure or (run.accuracy_key, result)
        else:
            run.accuracy = result
        self._awaited(run)

    # Latency

    def _measure(self, run: _Run) -> None:
        reference, plan = self._reference, self._plan
        if reference.artifact is None:
            assert reference.failure is not None
            run.failure = run.failure or reference.failure
            self._awaited(run)
            return
        assert run.artifact is not None
        run.latency_key = plan.latency_key(reference.artifact, run.artifact, run.variant.settings, self._host)
        known = self._store.latency_of(run.latency_key)
        if known is not None:
            self._take_latency(run, known)
            return
        options = BenchmarkOptions(
            max_seconds=plan.spec.latency.max_seconds, target_half_width=plan.spec.latency.target_half_width
        )
        self._graph.once(
            run.latency_key, _MEASURE, BENCHMARK, "benchmark", steps.measure, plan.storage, reference.artifact,
            run.artifact, run.variant.settings, plan.detector.spec, plan.spec.postprocessing, options,
            self._images.evaluation[0], then=lambda result: self._take_measured(run, result),
        )  # fmt: skip

    def _take_measured(self, run: _Run, result: steps.Measured | Failure) -> None:
        assert run.latency_key is not None and run.artifact is not None and self._reference.artifact is not None
        if isinstance(result, Failure):
            self._store.put_failure(run.latency_key, result)
            self._take_latency(run, result)
            return
        settings = run.variant.settings
        run.latency_key = self._plan.latency_key(self._reference.artifact, run.artifact, settings, result.host)
        self._store.put_latency(
            run.latency_key, run.artifact.structure_sha256, self._plan.timing(settings), result.host, result.latency
        )
        self._take_latency(run, result.latency)

    def _take_latency(self, run: _Run, result: Latency | Failure) -> None:
        assert run.latency_key is not None
        if isinstance(result, Failure):
            run.failure = run.failure or (run.latency_key, result)
        else:
            run.latency = result
        self._awaited(run)

    # Settling

    def _awaited(self, run: _Run) -> None:
        run.awaited -= 1
        if run.awaited == 0:
            self._settle(run)

    def _settle(self, run: _Run) -> None:
        failure_key, failure = run.failure if run.failure else (None, None)
        self._store.settle_variant(
            self.key,
            variant_key(self._plan.detector.sha256, run.variant),
            "failed" if failure else "done",
            request_key=run.request_key if run.artifact else None,
            accuracy_key=run.accuracy_key if run.accuracy else None,
            latency_key=run.latency_key if run.latency else None,
            failure_key=failure_key,
        )
        self._observer.settled(run.variant, run.accuracy, run.latency, failure)

    def _confirm_best(self) -> None:
        """Scores the reference and the fastest feasible variant again with the reference scorer."""
        rows = [row for row in leaderboard(self._engine, self.key) if row["status"] == "done"]
        allowed = [row for row in rows if row["feasible"] is not False]
        best = min(allowed, key=lambda row: row["latency_ratio"], default=None)
        chosen = {
            row["variant_key"] for row in rows if row["confirmed_by"] is None and (row is best or row["is_reference"])
        }
        for variant, key in zip(self._plan.spec.space.variants, self._record.variant_keys, strict=True):
            if key in chosen:
                self._confirm(variant, key)
        self._graph.run()

    def _confirm(self, variant: Variant, key: str) -> None:
        request_key = self._plan.request_key(variant.scheme)
        artifact = self._store.artifact_of(request_key)
        assert isinstance(artifact, Artifact)
        accuracy_key = self._plan.accuracy_key(artifact, variant.settings)

        def take(result: str | Failure) -> None:
            if isinstance(result, Failure):
                failure_key = key_of("confirmation", accuracy_key)
                self._store.put_failure(failure_key, result)
                self._store.settle_variant(self.key, key, "failed", request_key=request_key, failure_key=failure_key)
                self._observer.settled(variant, None, None, result)
            else:
                self._store.confirm_accuracy(accuracy_key, result)

        self._graph.once(
            f"confirm {accuracy_key}", _SCORE, LIGHT, "score", steps.confirm, self._plan.storage, self._truth_ref,
            self._store.accuracy_of(accuracy_key), then=take,
        )  # fmt: skip
