"""The demo's image sets: synthetic, made once in a folder."""

import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from tasks.coco.dataset import Dataset, load_dataset
from tasks.coco.synthetic import write_synthetic

EVALUATION_IMAGES, EVALUATION_SEED = 200, 2
CALIBRATION_IMAGES, CALIBRATION_SEED = 64, 1
TRAINING_IMAGES, TRAINING_SEED = 512, 3
_CALIBRATION_FIRST_ID, _TRAINING_FIRST_ID = 100_001, 200_001


def demo_spec() -> str:
    """Returns the text of the demo's spec."""
    return files("orchestrator").joinpath("examples/demo.yaml").read_text(encoding="utf-8")


def example_spec() -> str:
    """Returns the text of a spec to start from."""
    return files("orchestrator").joinpath("examples/litert-int8.yaml").read_text(encoding="utf-8")


def example_study() -> str:
    """Returns the text of a spec of a study to start from."""
    return files("orchestrator").joinpath("examples/study.yaml").read_text(encoding="utf-8")


def demo_evaluation(folder: Path) -> Dataset:
    """Makes or finds the synthetic evaluation set.

    Args:
        folder: Where the synthetic sets are kept.

    Returns:
        200 annotated images.
    """
    made = _made_once(folder / "evaluation", EVALUATION_IMAGES, EVALUATION_SEED, first_id=1)
    return replace(load_dataset(made / "images", made / "annotations.json"), name="the synthetic set")


def demo_calibration(folder: Path) -> Dataset:
    """Makes or finds the synthetic calibration images.

    Args:
        folder: Where the synthetic sets are kept.

    Returns:
        64 images, none of them in the evaluation set.
    """
    made = _made_once(folder / "calibration", CALIBRATION_IMAGES, CALIBRATION_SEED, _CALIBRATION_FIRST_ID)
    return load_dataset(made / "images", None)


def demo_training(folder: Path) -> Dataset:
    """Makes or finds the synthetic training images, with their boxes.

    Args:
        folder: Where the synthetic sets are kept.

    Returns:
        512 annotated images, none of them in the evaluation set.
    """
    made = _made_once(folder / "training", TRAINING_IMAGES, TRAINING_SEED, _TRAINING_FIRST_ID)
    return replace(load_dataset(made / "images", made / "annotations.json"), name="the synthetic training set")


def _made_once(folder: Path, images: int, seed: int, first_id: int) -> Path:
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write_synthetic(unfinished, images, seed, first_id)
        unfinished.replace(folder)
    return folder
