"""Small worlds: a detector and synthetic images, written once."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.coco.synthetic import write_synthetic
from tasks.latency import conditions
from tasks.types import Latency
from tests.command import quantsweep
from tests.contracts.conftest import postgresql as postgresql
from tests.detectors import tiny_detector


@dataclass(frozen=True)
class World:
    """Where things are."""

    folder: Path
    detector: str = "detector.safetensors"

    def spec(
        self,
        name: str,
        space: str,
        budget: str = "{max_loss: 0.02}",
        threads: str = "[1]",
        latency: str = "retries: 0",
        study: str = "{}",
        evaluation: str = "{images: val/images, annotations: val/annotations.json}",
        training: str = "{}",
    ) -> Path:
        """Writes a spec over this world."""
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"name: {name}\ndetector: {self.detector}\n"
            f"evaluation: {evaluation}\n"
            "calibration: {images: train/images}\n"
            f"budget: {budget}\nlatency: {{threads: {threads}, max_seconds: 0.5, {latency}}}\nspace: {space}\n"
            f"study: {study}\ntraining: {training}\n"
        )
        return path


LIMITS = ("MOST_PREEMPTED", "MOST_STEAL", "MOST_OTHERS", "MOST_RESTING")


@pytest.fixture(scope="module")
def no_noise() -> Iterator[None]:
    """Takes every machine for a quiet one: other tests run beside these."""
    with _no_noise():
        yield


@contextmanager
def _no_noise() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for limit in LIMITS:
            patch.setattr(conditions, limit, math.inf)
        # Two measurements of one artifact beside other tests may be apart, and a search corrects itself then
        # (tests/orchestrator/search): here the second one agrees with the first.
        patch.setattr(Latency, "is_apart_from", lambda latency, other: False)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """A random detector."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "detector.safetensors").write_bytes(tiny_detector().to_bytes())
    write_synthetic(folder / "val", images=12, seed=2)
    write_synthetic(folder / "train", images=8, seed=1, first_id=1001)
    return World(folder)


@pytest.fixture(scope="session")
def trained_world(tmp_path_factory) -> World:
    """The built-in detector, which finds most of what is in its images; `confirm` is a third set."""
    folder = tmp_path_factory.mktemp("trained")
    write_synthetic(folder / "val", images=64, seed=2)
    write_synthetic(folder / "train", images=8, seed=1, first_id=1001)
    write_synthetic(folder / "confirm", images=16, seed=3, first_id=5001)
    return World(folder, detector="demo")


SPACE = """
  - {scheme: [float16, dynamic_int8, weight_only_int8], toolchain: litert_quantizer}
  - {scheme: static_int8, toolchain: litert_quantizer, calibration_images: [1, 8],
     granularity: [per_channel, per_tensor]}
  - {scheme: static_int4, toolchain: litert_quantizer, calibration_images: 8}
"""
"""What searches are tried on."""

BUDGET = "{max_loss: 0.003}"


@pytest.fixture(scope="session")
def exhaustive(trained_world, tmp_path_factory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The exhaustive sweep of that space: its folder, and its rows by variant."""
    folder = tmp_path_factory.mktemp("exhaustive")
    arguments = ("--db", folder / "results.db", "--artifacts", folder / "artifacts", "--address", "in-process")
    with _no_noise():
        outcome = quantsweep("sweep", trained_world.spec("exhaustive", SPACE, BUDGET), *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return folder, {row["variant"]: row for row in json.loads(outcome.out)}
