"""Searches for tests: what a command would run, in this process or in one of its own, with a log of what was done.

As a program, `python -m tests.end_to_end.searching KIND SPEC FOLDER`, it runs a search until it is finished.
"""

import hashlib
import math
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from cluster.executor import Executor, Ref
from cluster.inprocess import InProcessExecutor
from orchestrator.cli.sweep import prepared
from orchestrator.find_best import FindBest
from orchestrator.progress import PlainProgress
from orchestrator.search.candidate import Candidate
from orchestrator.search.observer import Unobserved
from orchestrator.spec import load_spec
from orchestrator.study import Study
from results import queries
from results.connect import open_database
from tasks.detect import detections_from_bytes
from tasks.latency import conditions
from tasks.steps import accuracies, latencies


class Interrupted(InProcessExecutor):
    """Ctrl-C after some tasks."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.left = tasks

    def wait(self, refs: Sequence[Ref]) -> Ref:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().wait(refs)


class Told(Unobserved):
    """Remembers what an observer is told."""

    def __init__(self) -> None:
        self.verdicts: list[tuple[str, str]] = []

    def settled(self, candidate: Candidate) -> None:
        assert candidate.verdict is not None
        self.verdicts.append((candidate.variant.label, candidate.verdict.kind))


def open_search(kind: str, spec: Path, folder: Path, database: str | None = None, **options: Any) -> Study:
    """A search as the command opens it, over the artifacts of a folder, and its database if no other is given."""
    plan, database = prepared(load_spec(spec), str(folder / "artifacts")), database or str(folder / "results.db")
    engine = open_database(database)
    if kind == "find_best":
        return FindBest(plan, engine, PlainProgress(), **options)
    return Study(plan, engine, database, PlainProgress(), **options)


def search(kind: str, spec: Path, folder: Path, executor: Executor | None = None, **options: Any) -> Study:
    """Runs a search to its end."""
    found = open_search(kind, spec, folder, **options)
    found.run(executor or InProcessExecutor())
    return found


def rows_of(found: Study) -> dict[str, dict[str, Any]]:
    """Its leaderboard, by variant."""
    return {row["variant"]: row for row in queries.leaderboard(found._engine, found.key)}


def winner_of(found: Study) -> str | None:
    """Label of its winner."""
    key = found.outcome.winner_key
    return next((name for name, row in rows_of(found).items() if row["variant_key"] == key), None)


def without_scores(folder: Path, copy: Path) -> Path:
    """Copies a database with its artifacts and latencies, and forgets every score and sweep."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.detections", "*.detection-shard"))
    with sqlite3.connect(copy / "results.db") as database:
        for table in ("verdicts", "sweep_variants", "sweeps", "loss_intervals", "class_accuracies", "accuracies"):
            database.execute(f"DELETE FROM {table}")
    return copy


def kept_images(folder: Path, owner: str) -> int:
    """Images whose kept detections were made for a study."""
    contents = [path.read_bytes()[64:] for path in (folder / "artifacts").rglob("*.detection-shard")]
    own = [content[64:] for content in contents if content[:64].decode() == owner]
    return sum(len(detections_from_bytes(content).image_ids) for content in own)


def done(log: Path) -> Counter[str]:
    """How often each piece of work was done by the programs that wrote a log."""
    return Counter(log.read_text().split()) if log.exists() else Counter()


def _logged(module: ModuleType, log: Path, name: str, function: Any, key_of: Any) -> Any:
    def call(*arguments: Any) -> Any:
        result = function(*arguments)
        with log.open("a") as file:
            file.write(f"{name}:{key_of(*arguments)}\n")
        return result

    return mock.patch.object(module, name, call)


def _sha(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


def main(kind: str, spec: Path, folder: Path) -> None:
    """Runs a search in this process, and logs each inference of a shard, build and measurement once it is done."""
    for limit in ("MOST_PREEMPTED", "MOST_STEAL", "MOST_OTHERS", "MOST_RESTING"):
        setattr(conditions, limit, math.inf)
    log = folder / "log"
    detected = _logged(
        accuracies, log, "detect", accuracies.detect,
        lambda _, artifact, settings, __, ___, shard: f"{artifact.sha256}-{settings.runtime}-{shard.fingerprint}",
    )  # fmt: skip
    timed = _logged(
        latencies, log, "benchmark", latencies.benchmark,
        lambda _, data, settings, *others: f"{_sha(data)}-{settings.threads}",
    )  # fmt: skip
    with detected, timed:
        found = open_search(kind, spec, folder)
        if not found.is_finished:
            found.run(InProcessExecutor())
    sys.stdout.write(f"{os.getpid()} finished\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
