"""Tables: everything that a finished sweep measured, as what searches are replayed against."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from orchestrator.budget import Budget
from results import schema
from results.queries import find_sweep
from results.reading import rows_of
from results.store import Store
from tasks.average_precision import METRICS, average_precision
from tasks.coco.annotations import annotations_of
from tasks.coco.dataset import Dataset
from tasks.coco.image_file import ImageFile
from tasks.detect import detections_from_bytes
from tasks.errors import ArtifactUnreadable, ScoringFailed, UserMistake
from tasks.matches import Matches, match
from tasks.quantize.schemes import SCHEMES
from tasks.score import DETECTIONS_SUFFIX
from tasks.storage import ArtifactStorage
from tasks.types import Accuracy, Artifact, Failure, Latency, RuntimeSettings, Variant

_SAME_AP = 1e-6
"""Most that AP of the stored detections may differ from the stored AP: other annotations differ by far more."""


@dataclass(frozen=True, eq=False)
class Entry:
    """What the sweep found out about one variant."""

    variant: Variant
    """The variant."""

    artifact: Artifact | None
    """What was made."""

    latency: Latency | None
    """Its structure's latency."""

    own_latency: Latency | None
    """The second measurement, of its own bytes, if it had one."""

    build: str | None
    """Names the artifact with the runtime that scored it: entries of one build have the same detections, which are
    inferred once. None if it has none."""

    failure: Failure | None
    """Why something of the above is missing."""


@dataclass(frozen=True, eq=False)
class Table:
    """A fully measured sweep."""

    sweep: str
    """Its name."""

    sweep_key: str
    """Its key."""

    dataset: str
    """Name of the evaluation set."""

    budget: Budget
    """The largest loss of a feasible variant."""

    entries: tuple[Entry, ...]
    """What can be searched for, in the sweep's order: every variant but the reference."""

    reference_build: str
    """The build that losses refer to."""

    matches: Mapping[str, Matches]
    """What each build found, by `Entry.build`, the reference's included."""

    @property
    def images(self) -> int:
        """Images that the sweep scored on."""
        return len(self.matches[self.reference_build].image_ids)

    def entry_of(self, variant: Variant) -> Entry:
        """Returns what is known of a variant; it is in the table."""
        return self._by_variant[variant]

    @cached_property
    def _by_variant(self) -> dict[Variant, Entry]:
        return {entry.variant: entry for entry in self.entries}


def load_table(
    engine: Engine,
    sweep: str | None = None,
    artifacts_url: str | None = None,
    annotations: Path | None = None,
    budget: Budget | None = None,
) -> Table:
    """Reads a finished sweep and the detections of all its variants.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.
        artifacts_url: Where the detections are; where the sweep put them if None.
        annotations: The annotations that it was scored with; where it read them if None.
        budget: The budget; the sweep's own if None.

    Returns:
        The table.

    Raises:
        UserMistake: If there is no such sweep, it is not finished, its latencies come from several machines, it has no
            budget and none is given, or files are missing or are not those that it was scored with.
    """
    found = find_sweep(engine, sweep)
    rows = _rows(engine, found["sweep_key"])
    _refuse_unfinished(found, rows)
    budget = budget or _budget_of(found)
    store = Store(engine)
    reference = next(row for row in rows if row["is_reference"])
    entries = tuple(_entry(store, row) for row in rows if not row["is_reference"])
    _refuse_several_hosts(found, rows)
    accuracies = _accuracies(store, rows)
    if reference["accuracy_key"] not in accuracies:
        raise UserMistake(f"the reference of the sweep {found['sweep']} has no accuracy, so there is no loss to replay")
    truth = _ground_truth(annotations or Path(reference["annotations"]))
    matches = _matched(ArtifactStorage(artifacts_url or found["artifacts_url"]), truth, accuracies)
    return Table(
        sweep=found["sweep"],
        sweep_key=found["sweep_key"],
        dataset=found["dataset"],
        budget=budget,
        entries=entries,
        reference_build=reference["accuracy_key"],
        matches=matches,
    )


def _rows(engine: Engine, sweep_key: str) -> list[dict[str, Any]]:
    listed, variants, failures = schema.sweep_variants, schema.variants, schema.failure_records
    query = (
        select(
            listed.c.status,
            listed.c.request_key,
            listed.c.accuracy_key,
            listed.c.latency_key,
            listed.c.own_latency_key,
            (listed.c.variant_key == schema.sweeps.c.reference_variant_key).label("is_reference"),
            variants.c.label,
            variants.c.scheme_json,
            variants.c.settings_json,
            failures.c.stage,
            failures.c.reason,
            failures.c.message,
            schema.latencies.c.host_fingerprint,
            schema.datasets.c.annotations,
        )
        .join(variants, variants.c.key == listed.c.variant_key)
        .join(schema.sweeps, schema.sweeps.c.key == listed.c.sweep_key)
        .join(schema.datasets, schema.datasets.c.fingerprint == schema.sweeps.c.dataset_fingerprint)
        .outerjoin(failures, failures.c.key == listed.c.failure_key)
        .outerjoin(schema.latencies, schema.latencies.c.key == listed.c.latency_key)
        .where(listed.c.sweep_key == sweep_key)
        .order_by(listed.c.position)
    )
    return rows_of(engine, query)


def _entry(store: Store, row: Mapping[str, Any]) -> Entry:
    artifact = store.artifact_of(row["request_key"]) if row["request_key"] else None
    failure = Failure(row["stage"], row["reason"], row["message"]) if row["reason"] else None
    return Entry(
        variant=_variant(row),
        artifact=artifact if isinstance(artifact, Artifact) else None,
        latency=_latency(store, row["latency_key"]),
        own_latency=_latency(store, row["own_latency_key"]),
        build=row["accuracy_key"],
        failure=failure,
    )


def _variant(row: Mapping[str, Any]) -> Variant:
    axes, settings = dict(row["scheme_json"]), row["settings_json"]
    options = tuple((name, value) for name, value in settings["options"])
    return Variant(
        SCHEMES[axes.pop("name")](**axes), RuntimeSettings(settings["runtime"], settings["threads"], options)
    )


def _latency(store: Store, key: str | None) -> Latency | None:
    found = store.latency_of(key) if key else None
    return found if isinstance(found, Latency) else None


def _accuracies(store: Store, rows: Iterable[Mapping[str, Any]]) -> dict[str, Accuracy]:
    keys = dict.fromkeys(row["accuracy_key"] for row in rows if row["accuracy_key"])
    found = {key: store.accuracy_of(key) for key in keys}
    return {key: accuracy for key, accuracy in found.items() if isinstance(accuracy, Accuracy)}


def _budget_of(found: Mapping[str, Any]) -> Budget:
    if found["budget_metric"] is None:
        raise UserMistake(f"the sweep {found['sweep']} has no budget; give one: --max-loss 0.01")
    metrics = {name.lower(): name for name in METRICS}
    if found["budget_metric"] not in metrics:
        raise UserMistake(
            f"the budget of the sweep {found['sweep']} is about {found['budget_metric']}, which cannot be resampled; "
            f"choices of --metric, with --max-loss: {', '.join(METRICS)}"
        )
    return Budget(metrics[found["budget_metric"]], found["budget_max_loss"], bool(found["budget_relative"]))


def _refuse_unfinished(found: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    left = [row["label"] for row in rows if row["status"] not in ("done", "failed")]
    if left:
        raise UserMistake(
            f"{len(left)} of {len(rows)} variants of {found['sweep']} were not measured to the end ({left[0]}, ...), "
            "and a replay needs all; run: quantsweep sweep SPEC"
        )


def _refuse_several_hosts(found: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    hosts = {row["host_fingerprint"] for row in rows if row["host_fingerprint"]}
    if len(hosts) > 1:
        raise UserMistake(
            f"the latencies of {found['sweep']} come from {len(hosts)} machines and cannot be compared; sweep on one"
        )


def _ground_truth(path: Path) -> dict[str, Any]:
    """Reads annotations without their images, which a replay does not need."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, annotations, categories = (content[name] for name in ("images", "annotations", "categories"))
    except FileNotFoundError as error:
        raise UserMistake(f"the annotations {path} are gone; --annotations names another place") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserMistake(f"{path} cannot be read as COCO annotations: {error}") from error
    files = (ImageFile(each["id"], each["file_name"], each["width"], each["height"]) for each in images)
    names = {each["id"]: each["name"] for each in categories}
    boxes, _, _ = annotations_of(annotations, (each["id"] for each in images), names)
    ordered = tuple(sorted(files, key=lambda file: file.image_id))
    return Dataset(path.stem, ordered, dict(sorted(names.items())), str(path), boxes).ground_truth()


def _matched(storage: ArtifactStorage, truth: dict[str, Any], accuracies: Mapping[str, Accuracy]) -> dict[str, Matches]:
    contents, missing = {}, []
    for sha256 in dict.fromkeys(accuracy.detections_sha256 for accuracy in accuracies.values()):
        try:
            contents[sha256] = detections_from_bytes(storage.get(sha256, DETECTIONS_SUFFIX))
        except ArtifactUnreadable as error:
            missing.append(error)
    if missing:
        number = len(missing) + len(contents)
        raise UserMistake(
            f"{len(missing)} of {number} files of detections cannot be read: {missing[0]}; --artifacts names another "
            "place"
        )
    try:
        matched = {sha256: match(truth, detections) for sha256, detections in contents.items()}
    except ScoringFailed as error:
        raise UserMistake(f"these are not the annotations of the sweep: {error}; --annotations names others") from error
    for accuracy in accuracies.values():
        found = average_precision(matched[accuracy.detections_sha256])
        if abs(found - accuracy.statistics[0]) > _SAME_AP:
            raise UserMistake(
                f"these are not the annotations of the sweep: AP is {found:.4f} with them and was "
                f"{accuracy.statistics[0]:.4f}; --annotations names others"
            )
    return {key: matched[accuracy.detections_sha256] for key, accuracy in accuracies.items()}
