"""Direct comparisons: two variants timed in turn, and a variant's profile, on request and apart from any sweep."""

from collections.abc import Callable
from typing import Any

from cluster.connect import connect
from cluster.executor import refuse_threads
from cluster.lanes import BENCHMARK
from orchestrator.plan import scene_key
from orchestrator.profiles import PROFILE_SECONDS
from results.connect import database_for_results
from results.store import Store
from results.subject import Subject, find_subject
from tasks.errors import BenchmarkFailed, UserMistake
from tasks.identity import key_of
from tasks.latency.duel import DuelOptions
from tasks.latency.scene import SCENE
from tasks.runtimes.base import runtime_of
from tasks.steps import latencies as steps
from tasks.storage import ArtifactStorage
from tasks.types import Failure, Host

_PROTOCOL = "v1: paired blocks in rounds of fresh processes"


def measure_pair(
    db: str, first: str, second: str, sweep: str | None, artifacts: str | None, address: str, max_seconds: float
) -> None:
    """Times two variants of a sweep in turn, and stores the comparison.

    Args:
        db: The database.
        first: A variant, see `results.queries.find_variant`.
        second: Another one.
        sweep: Name or start of the key; None for the latest.
        artifacts: Where the files are; None for where the sweep put them.
        address: Where to measure, as in `cluster.connect.connect`.
        max_seconds: Time cap.

    Raises:
        UserMistake: If there is no such sweep, variant, artifact or place, or both are one variant.
        BenchmarkFailed: If the measurement has no result.
    """
    with database_for_results(db) as engine:
        one, other = find_subject(engine, first, sweep), find_subject(engine, second, sweep)
        if (one.artifact.sha256, one.settings) == (other.artifact.sha256, other.settings):
            raise UserMistake(
                f"{one.label} and {other.label} are one artifact run in one way; there is nothing to tell"
            )
        storage, scene = _place(one, artifacts)
        sides = ((one.artifact, one.settings), (other.artifact, other.settings))
        options = DuelOptions(max_seconds=max_seconds)
        threads = max(one.settings.threads, other.settings.threads)
        found = _measured(address, threads, steps.compare_directly, storage, *sides, scene, options)
        assert isinstance(found, steps.Compared)
        described = [(each.label, each.artifact, _timing(each)) for each in (one, other)]
        key = _key(one, other, found.host)
        Store(engine).put_comparison(key, described[0], described[1], found.host, found.comparison)


def measure_profile(
    db: str, variant: str, sweep: str | None, artifacts: str | None, address: str, seconds: float = PROFILE_SECONDS
) -> None:
    """Times each operator of a variant, and stores the profile with its latency.

    Args:
        db: The database.
        variant: See `results.queries.find_variant`.
        sweep: Name or start of the key; None for the latest.
        artifacts: Where the files are; None for where the sweep put them.
        address: Where to measure, as in `cluster.connect.connect`.
        seconds: Time to spend, about.

    Raises:
        UserMistake: If there is no such sweep, variant, artifact or place, its runtime cannot tell, or the machine is
            not the one that its latency was measured on.
        BenchmarkFailed: If the measurement has no result.
    """
    with database_for_results(db) as engine:
        subject, store = find_subject(engine, variant, sweep), Store(engine)
        if subject.latency_key is None:
            raise UserMistake(f"{subject.label} has no latency yet, which a profile explains; sweep it first")
        if runtime_of(subject.settings.runtime).profile is None:
            raise UserMistake(f"{subject.settings.runtime} has no way to tell the times of single operators")
        storage, scene = _place(subject, artifacts)
        subject_of = (subject.artifact, subject.settings)
        found = _measured(
            address, subject.settings.threads, steps.take_profile, storage, *subject_of, scene, seconds
        )  # fmt: skip
        assert isinstance(found, steps.Profiled)
        if found.host.fingerprint != subject.host:
            raise UserMistake(
                f"the latency of {subject.label} was measured on another machine or with other versions, which a "
                "profile taken here cannot explain; sweep on this machine first, or name that machine with --address"
            )
        store.put_profile(subject.latency_key, found.profile)


def _place(subject: Subject, artifacts: str | None) -> tuple[ArtifactStorage, str]:
    """Finds the storage, and the key of the images in it."""
    storage = ArtifactStorage(artifacts or subject.artifacts_url)
    scene = scene_key(subject.dataset_fingerprint, subject.detector_sha256)
    missing = [
        what
        for what, is_there in (
            (f"the artifact of {subject.label}", storage.has(subject.artifact.sha256, subject.artifact.format)),
            ("the images that latency is measured on", storage.recall(scene, SCENE) is not None),
        )
        if not is_there
    ]
    if missing:
        raise UserMistake(
            f"{' and '.join(missing)} are not in {storage.url}; `--artifacts` names another place, and sweeping again "
            "with another database makes what was deleted"
        )
    return storage, scene


def _measured(address: str, threads: int, step: Callable[..., Any], *arguments: Any) -> Any:
    executor = connect(address)
    try:
        refuse_threads(executor, [threads])
        ref = executor.submit(BENCHMARK, "benchmark", step, *arguments)
        result = executor.result(executor.wait([ref]))
    finally:
        executor.close()
    if isinstance(result, Failure):
        raise BenchmarkFailed(f"{result.reason}: {result.message}")
    return result


def _key(one: Subject, other: Subject, host: Host) -> str:
    sides = [(each.artifact.sha256, _timing(each)) for each in (one, other)]
    return key_of("comparison", _PROTOCOL, sides, host.fingerprint)


def _timing(subject: Subject) -> dict[str, Any]:
    return {"settings": subject.settings, "runtime_version": runtime_of(subject.settings.runtime).version()}
