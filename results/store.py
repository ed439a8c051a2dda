"""The one writer: every result in one transaction, every write an upsert on its key."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from results.connect import mistake_of
from results.rows import audit_json, fields_in, plain, row_of, sweep_row, variant_row
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
    sweep_variants,
    sweeps,
    variants,
)
from results.sweep_record import SweepRecord
from tasks.errors import AuditMismatch, InferenceFailed, QuantizationFailed, ScoringFailed, UnsupportedScheme
from tasks.identity import canonical
from tasks.types import Accuracy, Artifact, Audit, Failure, Host, Latency

KEPT_FAILURES: frozenset[str] = frozenset(
    error.reason for error in (UnsupportedScheme, QuantizationFailed, AuditMismatch, InferenceFailed, ScoringFailed)
)
"""Reasons that follow from the key alone: the same request fails the same way again, so a rerun keeps the failure.
All others (`worker_lost`, `unexpected_error`, `benchmark_failed`, `artifact_unreadable`) depend on the machine or the
moment: the store answers as if the key had never been asked for, and a rerun tries again."""


class Store:
    """Writes results, and finds by key what is there already."""

    def __init__(self, engine: Engine) -> None:
        """Takes an engine of `results.connect.open_database`."""
        self._engine = engine
        self._reader = engine.execution_options(reads=True)

    def put_detector(self, sha256: str, name: str, spec: Any, parameters: int, macs: int) -> None:
        """Stores a detector.

        Args:
            sha256: Hash of its file.
            name: Name for people.
            spec: The architecture, a dataclass or a mapping of plain values.
            parameters: Number of weights and biases.
            macs: Multiply-accumulates of one inference.
        """
        with self._write() as connection:
            row = {"sha256": sha256, "name": name, "spec": canonical(spec), "parameters": parameters, "macs": macs}
            _upsert(connection, detectors, row)

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
        with self._write() as connection:
            _upsert(
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
        with self._write() as connection:
            for variant in sweep.variants:
                _upsert(connection, variants, variant_row(sweep.detector_sha256, variant))
            _upsert(connection, sweeps, sweep_row(sweep, datetime.now(UTC)), keep=("started_at",))
            for position, each in enumerate(sweep.variant_keys):
                member = {"sweep_key": sweep.key, "variant_key": each, "position": position, "status": "pending"}
                _upsert(connection, sweep_variants, member, keep=("status",))
        return sweep.key

    def put_artifact(
        self,
        request_key: str,
        detector_sha256: str,
        scheme: Any,
        versions: Mapping[str, str],
        artifact: Artifact,
        build_seconds: float,
    ) -> None:
        """Stores an artifact and the request that it answers.

        Args:
            request_key: Key of the request.
            detector_sha256: A detector that is stored already.
            scheme: How the artifact was made.
            versions: Versions of the packages that decide about the bytes.
            artifact: What came out.
            build_seconds: Wall time of the build.
        """
        shares = artifact.audit.mac_share
        row = row_of(artifact, artifacts) | {
            "audit": audit_json(artifact.audit),
            "int8_mac_share": shares.get("int8", 0.0) + shares.get("dynamic_int8", 0.0),
        }
        request = {
            "key": request_key,
            "detector_sha256": detector_sha256,
            "scheme": {"name": scheme.name, **scheme.axes()},
            "versions": dict(versions),
            "artifact_sha256": artifact.sha256,
            "build_seconds": build_seconds,
        }
        with self._write() as connection:
            _upsert(connection, artifacts, row)
            _upsert(connection, artifact_requests, request)

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
        others = (accuracies.c.key == key) & (accuracies.c.detections_sha256 != accuracy.detections_sha256)
        with self._write() as connection:
            connection.execute(update(accuracies).where(others).values(confirmed_by=None))
            _upsert(connection, accuracies, row)
            connection.execute(delete(class_accuracies).where(class_accuracies.c.accuracy_key == key))
            found = connection.execute(
                select(datasets.c.categories).where(datasets.c.fingerprint == dataset_fingerprint)
            ).scalar_one()
            for category, ap in accuracy.class_ap.items():
                name = found.get(str(category))
                row = {"accuracy_key": key, "category_id": category, "name": name, "ap": ap}
                _upsert(connection, class_accuracies, row)

    def confirm_accuracy(self, key: str, scorer: str) -> None:
        """Notes that a reference scorer gave the same statistics.

        Args:
            key: Key of the evaluation.
            scorer: The reference scorer, with its version.

        Raises:
            KeyError: If there is no such accuracy.
        """
        with self._write() as connection:
            _update(connection, accuracies, {"key": key}, {"confirmed_by": scorer})

    def put_latency(self, key: str, structure_sha256: str, settings: Any, host: Host, latency: Latency) -> None:
        """Stores a latency and the machine it was measured on.

        Args:
            key: Key of the measurement.
            structure_sha256: The structure that was timed.
            settings: Runtime settings, versions and limits: dataclasses or plain values.
            host: The machine.
            latency: The measurement.
        """
        row = row_of(latency, latencies) | {
            "key": key,
            "structure_sha256": structure_sha256,
            "settings": canonical(settings),
            "host_fingerprint": host.fingerprint,
            "samples_ms": [[float(reference), float(variant)] for reference, variant in latency.samples_ms],
            "conditions": {name: float(value) for name, value in latency.conditions.items()},
        }
        with self._write() as connection:
            _upsert(connection, hosts, {"fingerprint": host.fingerprint, "properties": canonical(host.properties)})
            _upsert(connection, latencies, row)

    def put_failure(self, key: str, failure: Failure) -> None:
        """Stores why a key has no result. A result stored under the key, before or later, outweighs the failure.

        Args:
            key: Key of the artifact request, accuracy or latency that was asked for.
            failure: What happened.
        """
        with self._write() as connection:
            row = row_of(failure, failure_records) | {"key": key, "created_at": datetime.now(UTC)}
            _upsert(connection, failure_records, row)

    def settle_variant(
        self,
        sweep_key: str,
        variant_key: str,
        status: Literal["pending", "done", "failed"],
        *,
        request_key: str | None = None,
        accuracy_key: str | None = None,
        latency_key: str | None = None,
        failure_key: str | None = None,
    ) -> None:
        """Says how a variant of a sweep ended, and where its results are.

        Args:
            sweep_key: The sweep.
            variant_key: The variant.
            status: `done`, `failed`, or `pending` to take it back.
            request_key: Key of its artifact request; the artifact is found through it.
            accuracy_key: Key of its accuracy, if it is stored.
            latency_key: Key of its latency, if it is stored.
            failure_key: Key under which the failure is stored, if and only if it failed.

        Raises:
            ValueError: If a failed variant has no failure or another has one.
            KeyError: If the variant is not in the sweep.
        """
        if (status == "failed") != (failure_key is not None):
            raise ValueError(
                f"status is {status} and failure_key is {failure_key}; failed variants have one, others none"
            )
        artifact = select(artifact_requests.c.artifact_sha256).where(artifact_requests.c.key == request_key)
        values = {
            "status": status,
            "request_key": request_key,
            "artifact_sha256": artifact.scalar_subquery(),
            "accuracy_key": accuracy_key,
            "latency_key": latency_key,
            "failure_key": failure_key,
            "settled_at": datetime.now(UTC),
        }
        with self._write() as connection:
            _update(connection, sweep_variants, {"sweep_key": sweep_key, "variant_key": variant_key}, values)

    def finish_sweep(self, sweep_key: str) -> None:
        """Marks a sweep as finished.

        Args:
            sweep_key: The sweep.

        Raises:
            KeyError: If there is no such sweep.
        """
        with self._write() as connection:
            _update(connection, sweeps, {"key": sweep_key}, {"finished_at": datetime.now(UTC)})

    def statuses(self, sweep_key: str) -> dict[str, str]:
        """Returns the status of each variant of a sweep, by variant key, in the sweep's order."""
        query = select(sweep_variants.c.variant_key, sweep_variants.c.status).where(
            sweep_variants.c.sweep_key == sweep_key
        )
        with self._read() as connection:
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
        with self._read() as connection:
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                return _kept_failure(connection, request_key)
        return Artifact(**fields_in(Artifact, row) | {"audit": Audit(**row["audit"])})

    def accuracy_of(self, key: str) -> Accuracy | Failure | None:
        """Finds what an evaluation gave.

        Args:
            key: Key of the evaluation.

        Returns:
            The accuracy, a failure that a rerun keeps, or None if it must be evaluated.
        """
        by_class = select(class_accuracies).where(class_accuracies.c.accuracy_key == key)
        with self._read() as connection:
            row = connection.execute(select(accuracies).where(accuracies.c.key == key)).mappings().one_or_none()
            if row is None:
                return _kept_failure(connection, key)
            class_ap = {each.category_id: each.ap for each in connection.execute(by_class)}
        statistics = tuple(row[name] for name in STATISTICS)
        return Accuracy(**fields_in(Accuracy, row), statistics=statistics, class_ap=class_ap)

    def confirmed_by(self, accuracy_key: str) -> str | None:
        """Returns the reference scorer that confirmed an accuracy, or None."""
        with self._read() as connection:
            found: str | None = connection.execute(
                select(accuracies.c.confirmed_by).where(accuracies.c.key == accuracy_key)
            ).scalar()
            return found

    def latency_of(self, key: str) -> Latency | Failure | None:
        """Finds what a measurement gave.

        Args:
            key: Key of the measurement.

        Returns:
            The latency, a failure that a rerun keeps, or None if it must be measured.
        """
        with self._read() as connection:
            row = connection.execute(select(latencies).where(latencies.c.key == key)).mappings().one_or_none()
            if row is None:
                return _kept_failure(connection, key)
        samples = tuple((reference, variant) for reference, variant in row["samples_ms"])
        return Latency(**fields_in(Latency, row) | {"samples_ms": samples})

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise mistake_of(self._engine, error) from error

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        try:
            with self._reader.connect() as connection:
                yield connection
        except OperationalError as error:
            raise mistake_of(self._engine, error) from error


def _kept_failure(connection: Connection, key: str) -> Failure | None:
    row = connection.execute(select(failure_records).where(failure_records.c.key == key)).mappings().one_or_none()
    if row is None or row["reason"] not in KEPT_FAILURES:
        return None
    return Failure(**fields_in(Failure, row))


def _upsert(connection: Connection, table: Table, row: dict[str, Any], keep: Sequence[str] = ()) -> None:
    # The two dialects' statements have no common type, though the same methods.
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values({name: plain(table, name, value) for name, value in row.items()})
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in row if name not in (*keys, *keep)}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))


def _update(connection: Connection, table: Table, key: dict[str, str], values: dict[str, Any]) -> None:
    statement = update(table).where(*(table.c[name] == value for name, value in key.items())).values(values)
    if connection.execute(statement).rowcount != 1:
        raise KeyError(f"{table.name} has no row {key}")
