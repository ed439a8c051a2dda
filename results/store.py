"""The one writer: every result in one transaction, every write an upsert on its key."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, delete, select, update

from results.comparison_store import ComparisonStore
from results.kept_failures import KEPT_FAILURES as KEPT_FAILURES
from results.kept_failures import kept_failure
from results.profile_store import ProfileStore
from results.rows import (
    audit_json,
    fields_in,
    int8_share,
    latency_row,
    quantized_mac_share,
    row_of,
    scheme_json,
    sweep_row,
    timing_fields,
    variant_row,
)
from results.schema import (
    STATISTICS,
    accuracies,
    artifact_requests,
    artifacts,
    class_accuracies,
    datasets,
    detectors,
    failure_records,
    hosts,
    latencies,
    loss_intervals,
    sweep_variants,
    sweeps,
    trainings,
    variants,
)
from results.sensitivity_store import SensitivityStore
from results.sweep_record import SweepRecord
from results.training_store import TrainingStore
from results.transactions import change, upsert
from results.verdict_store import StoredVerdict, VerdictStore, forget_verdict, write_verdict
from tasks.identity import canonical
from tasks.types import Accuracy, Artifact, Audit, Failure, Host, Latency, LossInterval, Scheme, Verdict

PAIRED_BOOTSTRAP = "paired bootstrap over images"
"""The one way so far of computing intervals of losses."""


class Store(ComparisonStore, ProfileStore, SensitivityStore, TrainingStore, VerdictStore):
    """Writes results, and finds by key what is there already."""

    def put_detector(self, sha256: str, name: str, spec: Any, parameters: int, macs: int) -> None:
        """Stores a detector.

        Args:
            sha256: Hash of its file.
            name: Name for people.
            spec: The architecture, a dataclass or a mapping of plain values.
            parameters: Number of weights and biases.
            macs: Multiply-accumulates of one inference.
        """
        with self.writing() as connection:
            row = {"sha256": sha256, "name": name, "spec": canonical(spec), "parameters": parameters, "macs": macs}
            upsert(connection, detectors, row)

    def put_dataset(
        self, fingerprint: str, name: str, images: int, categories: Mapping[int, str], annotations: str
    ) -> None:
        """Stores an evaluation set.

        Args:
            fingerprint: Hash of images, ids and annotations.
            name: Name for people.
            images: Number of images.
            categories: Category names by id.
            annotations: Where the annotations were read from.
        """
        names = {str(category): name for category, name in categories.items()}
        with self.writing() as connection:
            upsert(
                connection,
                datasets,
                {
                    "fingerprint": fingerprint,
                    "name": name,
                    "images": images,
                    "categories": names,
                    "annotations": annotations,
                },
            )

    def begin_sweep(self, sweep: SweepRecord) -> str:
        """Starts a sweep, or resumes it.

        Args:
            sweep: What is swept; its detector and evaluation set are stored already.

        Returns:
            The sweep's key. Variants that were settled before keep their status.
        """
        with self.writing() as connection:
            for variant in sweep.variants:
                upsert(connection, variants, variant_row(sweep.detector_sha256, variant))
            upsert(connection, sweeps, sweep_row(sweep, datetime.now(UTC)), keep=("started_at",))
            for position, each in enumerate(sweep.variant_keys):
                member = {"sweep_key": sweep.key, "variant_key": each, "position": position, "status": "pending"}
                upsert(connection, sweep_variants, member, keep=("status",))
        return sweep.key

    def put_artifact(
        self,
        request_key: str,
        detector_sha256: str,
        scheme: Scheme,
        versions: Mapping[str, str],
        artifact: Artifact,
        build_seconds: float,
        training_key: str | None = None,
    ) -> None:
        """Stores an artifact and the request that it answers.

        Args:
            request_key: Key of the request.
            detector_sha256: A detector that is stored already.
            scheme: How the artifact was made.
            versions: Versions of the packages that decide about the bytes.
            artifact: What came out.
            build_seconds: Wall time of the build.
            training_key: Key of the training that gave the weights, which is stored already; None if none did.
        """
        row = row_of(artifact, artifacts) | {
            "audit": audit_json(artifact.audit),
            "int8_mac_share": int8_share(artifact.audit.mac_share),
            "quantized_mac_share": quantized_mac_share(artifact.audit),
        }
        request = {
            "key": request_key,
            "detector_sha256": detector_sha256,
            "scheme": scheme_json(scheme),
            "versions": dict(versions),
            "artifact_sha256": artifact.sha256,
            "build_seconds": build_seconds,
            "training_key": training_key,
        }
        with self.writing() as connection:
            upsert(connection, artifacts, row)
            upsert(connection, artifact_requests, request)

    def put_accuracy(
        self, key: str, artifact_sha256: str, dataset_fingerprint: str, accuracy: Accuracy, settings: Any
    ) -> None:
        """Stores an accuracy with its AP by category; the dataset gives the categories' names.

        Args:
            key: Key of the evaluation.
            artifact_sha256: An artifact that is stored already.
            dataset_fingerprint: An evaluation set that is stored already.
            accuracy: The scores.
            settings: Preprocessing, postprocessing and versions: dataclasses or plain values.
        """
        row = row_of(accuracy, accuracies) | {
            "key": key,
            "artifact_sha256": artifact_sha256,
            "dataset_fingerprint": dataset_fingerprint,
            **dict(zip(STATISTICS, accuracy.statistics, strict=True)),
            "settings": canonical(settings),
        }
        with self.writing() as connection:
            _forget_others(connection, key, accuracy.detections_sha256)
            upsert(connection, accuracies, row)
            connection.execute(delete(class_accuracies).where(class_accuracies.c.accuracy_key == key))
            found = connection.execute(
                select(datasets.c.categories).where(datasets.c.fingerprint == dataset_fingerprint)
            ).scalar_one()
            for category, ap in accuracy.class_ap.items():
                name = found.get(str(category))
                row = {"accuracy_key": key, "category_id": category, "name": name, "ap": ap}
                upsert(connection, class_accuracies, row)

    def confirm_accuracy(self, key: str, scorer: str) -> None:
        """Notes that a reference scorer gave the same statistics.

        Args:
            key: Key of the evaluation.
            scorer: The reference scorer, with its version.

        Raises:
            KeyError: If there is no such accuracy.
        """
        with self.writing() as connection:
            change(connection, accuracies, {"key": key}, {"confirmed_by": scorer})

    def put_loss_interval(
        self,
        key: str,
        accuracy_key: str,
        reference_accuracy_key: str,
        interval: LossInterval,
        method: str = PAIRED_BOOTSTRAP,
    ) -> None:
        """Stores how far the AP loss of an evaluation could move.

        Args:
            key: Key of the interval.
            accuracy_key: An accuracy that is stored already.
            reference_accuracy_key: The reference's accuracy on the same images, stored already.
            interval: The interval.
            method: How it was computed.
        """
        row = row_of(interval, loss_intervals) | {
            "key": key,
            "accuracy_key": accuracy_key,
            "reference_accuracy_key": reference_accuracy_key,
            "method": method,
            "created_at": datetime.now(UTC),
        }
        with self.writing() as connection:
            upsert(connection, loss_intervals, row)

    def put_latency(self, key: str, structure_sha256: str, settings: Any, host: Host, latency: Latency) -> None:
        """Stores a latency and the machine it was measured on.

        Args:
            key: Key of the measurement.
            structure_sha256: The structure that was timed.
            settings: Runtime settings, versions and limits: dataclasses or plain values.
            host: The machine.
            latency: The measurement.
        """
        row = latency_row(latency) | {
            "key": key,
            "structure_sha256": structure_sha256,
            "settings": canonical(settings),
            "host_fingerprint": host.fingerprint,
        }
        with self.writing() as connection:
            upsert(connection, hosts, {"fingerprint": host.fingerprint, "properties": canonical(host.properties)})
            upsert(connection, latencies, row)

    def put_failure(self, key: str, failure: Failure) -> None:
        """Stores why a key has no result. A result stored under the key, before or later, outweighs the failure.

        Args:
            key: Key of the training, artifact request, accuracy or latency that was asked for.
            failure: What happened.
        """
        with self.writing() as connection:
            row = row_of(failure, failure_records) | {"key": key, "created_at": datetime.now(UTC)}
            upsert(connection, failure_records, row)

    def settle_variant(
        self,
        sweep_key: str,
        variant_key: str,
        status: Literal["pending", "done", "stopped", "failed"],
        *,
        request_key: str | None = None,
        accuracy_key: str | None = None,
        latency_key: str | None = None,
        training_key: str | None = None,
        failure_key: str | None = None,
        verdict: Verdict | None = None,
        trial: int | None = None,
        inferred: int = 0,
    ) -> None:
        """Says how a variant of a sweep ended, where its results are, and what a search decided; in one transaction.

        Args:
            sweep_key: The sweep, study or search.
            variant_key: The variant.
            status: `done`; `stopped` if it, or its untrained twin, was made and timed, and it was not scored on every
                image; `failed`; or `pending` to take it back, with its verdict.
            request_key: Key of its artifact request; the artifact is found through it.
            accuracy_key: Key of its accuracy, if it is stored.
            latency_key: Key of its latency, if it is stored.
            training_key: Key of its training, if it has one: so that also what a training without a result cost is
                found. Without it, the training is found through the artifact request, if that was answered.
            failure_key: Key under which the failure is stored, if and only if it failed.
            verdict: What the search decided; None leaves what was decided before.
            trial: With `verdict`, see `put_verdict`.
            inferred: With `verdict`, see `put_verdict`.

        Raises:
            ValueError: If a failed variant has no failure or another has one, if a stopped one has an accuracy or no
                latency, or if the interval of the verdict is of other images.
            KeyError: If the variant is not in the sweep.
        """
        if (status == "failed") != (failure_key is not None):
            raise ValueError(
                f"status is {status} and failure_key is {failure_key}; failed variants have one, others none"
            )
        if status == "stopped" and (accuracy_key is not None or latency_key is None):
            raise ValueError(
                f"status is stopped with latency {latency_key} and accuracy {accuracy_key}; stopped variants have the "
                "first and not the second"
            )
        artifact = select(artifact_requests.c.artifact_sha256).where(artifact_requests.c.key == request_key)
        # A training that failed before its first point has left nothing to refer to.
        training = select(trainings.c.key).where(trainings.c.key == training_key)
        values = {
            "status": status,
            "request_key": request_key,
            "artifact_sha256": artifact.scalar_subquery(),
            "accuracy_key": accuracy_key,
            "latency_key": latency_key,
            "training_key": training.scalar_subquery(),
            "failure_key": failure_key,
            "settled_at": datetime.now(UTC),
        }
        with self.writing() as connection:
            change(connection, sweep_variants, {"sweep_key": sweep_key, "variant_key": variant_key}, values)
            if verdict is not None:
                write_verdict(connection, sweep_key, variant_key, StoredVerdict(verdict, trial, inferred))
            elif status == "pending":
                forget_verdict(connection, sweep_key, variant_key)

    def put_own_latency(self, sweep_key: str, variant_key: str, latency_key: str, replaces: bool) -> None:
        """Says where the second latency of a variant is, which is of its artifact's own bytes.

        Args:
            sweep_key: The sweep.
            variant_key: The variant.
            latency_key: Key of a latency that is stored.
            replaces: Whether it is the variant's latency from now on, too, in place of its structure's.

        Raises:
            KeyError: If the variant is not in the sweep.
        """
        with self.writing() as connection:
            keys = {"sweep_key": sweep_key, "variant_key": variant_key}
            values = {"own_latency_key": latency_key} | ({"latency_key": latency_key} if replaces else {})
            change(connection, sweep_variants, keys, values)

    def finish_sweep(self, sweep_key: str) -> None:
        """Marks a sweep as finished.

        Args:
            sweep_key: The sweep.

        Raises:
            KeyError: If there is no such sweep.
        """
        with self.writing() as connection:
            change(connection, sweeps, {"key": sweep_key}, {"finished_at": datetime.now(UTC)})

    def statuses(self, sweep_key: str) -> dict[str, str]:
        """Returns the status of each variant of a sweep, by variant key, in the sweep's order."""
        query = select(sweep_variants.c.variant_key, sweep_variants.c.status).where(
            sweep_variants.c.sweep_key == sweep_key
        )
        with self.reading() as connection:
            rows = connection.execute(query.order_by(sweep_variants.c.position))
            return {row.variant_key: row.status for row in rows}

    def artifact_of(self, request_key: str) -> Artifact | Failure | None:
        """Finds what an artifact request gave.

        Args:
            request_key: Key of the request.

        Returns:
            The artifact, a failure that a rerun keeps (see `KEPT_FAILURES`), or None if it must be made.
        """
        query = select(artifacts).join(artifact_requests).where(artifact_requests.c.key == request_key)
        with self.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                return kept_failure(connection, request_key)
        return Artifact(**fields_in(Artifact, row) | {"audit": Audit(**row["audit"])})

    def accuracy_of(self, key: str) -> Accuracy | Failure | None:
        """Finds what an evaluation gave.

        Args:
            key: Key of the evaluation.

        Returns:
            The accuracy, a failure that a rerun keeps, or None if it must be evaluated.
        """
        by_class = select(class_accuracies).where(class_accuracies.c.accuracy_key == key)
        with self.reading() as connection:
            row = connection.execute(select(accuracies).where(accuracies.c.key == key)).mappings().one_or_none()
            if row is None:
                return kept_failure(connection, key)
            class_ap = {each.category_id: each.ap for each in connection.execute(by_class)}
        statistics = tuple(row[name] for name in STATISTICS)
        return Accuracy(**fields_in(Accuracy, row), statistics=statistics, class_ap=class_ap)

    def confirmed_by(self, accuracy_key: str) -> str | None:
        """Returns the reference scorer that confirmed an accuracy, or None."""
        with self.reading() as connection:
            found: str | None = connection.execute(
                select(accuracies.c.confirmed_by).where(accuracies.c.key == accuracy_key)
            ).scalar()
            return found

    def loss_interval_of(self, key: str) -> LossInterval | None:
        """Finds an interval of a loss.

        Args:
            key: Key of the interval.

        Returns:
            The interval, or None if it must be computed.
        """
        with self.reading() as connection:
            row = connection.execute(select(loss_intervals).where(loss_intervals.c.key == key)).mappings().one_or_none()
        return None if row is None else LossInterval(**fields_in(LossInterval, row))

    def latency_of(self, key: str) -> Latency | Failure | None:
        """Finds what a measurement gave.

        Args:
            key: Key of the measurement.

        Returns:
            The latency, a failure that a rerun keeps, or None if it must be measured.
        """
        with self.reading() as connection:
            row = connection.execute(select(latencies).where(latencies.c.key == key)).mappings().one_or_none()
            if row is None:
                return kept_failure(connection, key)
        return Latency(**fields_in(Latency, row) | timing_fields(row))


def _forget_others(connection: Connection, accuracy_key: str, detections_sha256: str) -> None:
    """Forgets what was derived from other detections than those that an accuracy now belongs to."""
    stored = select(accuracies.c.detections_sha256).where(accuracies.c.key == accuracy_key)
    if connection.execute(stored).scalar() in (None, detections_sha256):
        return
    connection.execute(update(accuracies).where(accuracies.c.key == accuracy_key).values(confirmed_by=None))
    either = (loss_intervals.c.accuracy_key == accuracy_key) | (loss_intervals.c.reference_accuracy_key == accuracy_key)
    connection.execute(delete(loss_intervals).where(either))
