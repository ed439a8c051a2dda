"""Subjects of further measurements: what has to be known of a variant to run its artifact again."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from results import schema
from results.queries import find_sweep, find_variant
from results.reading import rows_of
from results.store import Store
from tasks.errors import UserMistake
from tasks.types import Artifact, RuntimeSettings


@dataclass(frozen=True)
class Subject:
    """A variant whose artifact is there."""

    label: str
    """Its label."""

    artifact: Artifact
    """Its artifact."""

    settings: RuntimeSettings
    """How it is run."""

    latency_key: str | None
    """Key of its latency, if it has one."""

    host: str | None
    """Fingerprint of the machine that its latency was measured on, if it has one."""

    detector_sha256: str
    """The detector."""

    dataset_fingerprint: str
    """The evaluation set of its sweep."""

    artifacts_url: str
    """Artifact storage of its sweep."""


def find_subject(engine: Engine, variant: str, sweep: str | None = None) -> Subject:
    """Finds a variant that can be run again.

    Args:
        engine: A database.
        variant: See `results.queries.find_variant`.
        sweep: Name or start of the key; None for the latest.

    Returns:
        The subject.

    Raises:
        UserMistake: If there is no such sweep or variant, or the variant has no artifact.
    """
    found = find_variant(engine, variant, sweep)
    home = find_sweep(engine, found["sweep_key"])
    listed = schema.sweep_variants
    query = (
        select(listed.c.request_key, listed.c.latency_key, schema.variants.c.settings_json)
        .join(schema.variants, schema.variants.c.key == listed.c.variant_key)
        .where(listed.c.sweep_key == found["sweep_key"], listed.c.variant_key == found["variant_key"])
    )
    (row,) = rows_of(engine, query)
    artifact = Store(engine).artifact_of(row["request_key"]) if row["request_key"] else None
    if not isinstance(artifact, Artifact):
        why = found["failure_message"] or f"its status is {found['status']}"
        raise UserMistake(f"{found['variant']} has no artifact: {why}")
    return Subject(
        label=found["variant"],
        artifact=artifact,
        settings=_settings(row["settings_json"]),
        latency_key=row["latency_key"],
        host=found["host"],
        detector_sha256=home["detector_sha256"],
        dataset_fingerprint=home["dataset_fingerprint"],
        artifacts_url=home["artifacts_url"],
    )


def _settings(stored: dict[str, Any]) -> RuntimeSettings:
    options = tuple((name, value) for name, value in stored["options"])
    return RuntimeSettings(stored["runtime"], stored["threads"], options)
