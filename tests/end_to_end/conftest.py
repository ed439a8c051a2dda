"""A small world: a random detector and synthetic images, written once."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.coco.synthetic import write_synthetic
from tasks.latency import conditions
from tests.detectors import tiny_detector


@dataclass(frozen=True)
class World:
    """Where things are."""

    folder: Path

    def spec(
        self,
        name: str,
        space: str,
        budget: str = "{max_loss: 0.02}",
        threads: str = "[1]",
        latency: str = "retries: 0",
    ) -> Path:
        """Writes a spec over this world."""
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"name: {name}\ndetector: detector.safetensors\n"
            "evaluation: {images: val/images, annotations: val/annotations.json}\n"
            "calibration: {images: train/images}\n"
            f"budget: {budget}\nlatency: {{threads: {threads}, max_seconds: 0.5, {latency}}}\nspace: {space}\n"
        )
        return path


LIMITS = ("MOST_PREEMPTED", "MOST_STEAL", "MOST_OTHERS", "MOST_RESTING")


@pytest.fixture(scope="module")
def no_noise() -> Iterator[None]:
    """Takes every machine for a quiet one: other tests run beside these."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in LIMITS:
            patch.setattr(conditions, limit, math.inf)
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    (folder / "detector.safetensors").write_bytes(tiny_detector().to_bytes())
    write_synthetic(folder / "val", images=12, seed=2)
    write_synthetic(folder / "train", images=8, seed=1, first_id=1001)
    return World(folder)
