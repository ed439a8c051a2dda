"""A small world: a random detector and synthetic images, written once."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.coco.synthetic import write_synthetic
from tests.detectors import tiny_detector


@dataclass(frozen=True)
class World:
    """Where things are."""

    folder: Path

    def spec(self, name: str, space: str, budget: str = "{max_loss: 0.02}", threads: str = "[1]") -> Path:
        """Writes a spec over this world."""
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"name: {name}\ndetector: detector.safetensors\n"
            "evaluation: {images: val/images, annotations: val/annotations.json}\n"
            "calibration: {images: train/images}\n"
            f"budget: {budget}\nlatency: {{threads: {threads}, max_seconds: 0.5}}\nspace: {space}\n"
        )
        return path


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    (folder / "detector.safetensors").write_bytes(tiny_detector().to_bytes())
    write_synthetic(folder / "val", images=12, seed=2)
    write_synthetic(folder / "train", images=8, seed=1, first_id=1001)
    return World(folder)
