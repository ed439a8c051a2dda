"""The TensorFlow zoo's detector and COCO images, laid out as the example specs name them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODEL = "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite"

SETS = {
    "real": """
detector: detector.safetensors
evaluation: {images: coco-mini/val2017, annotations: coco-mini/annotations/instances_val2017.json}
calibration: {images: coco-calib128/train2017}
""",
    "demo": """
detector: demo
evaluation: demo
calibration: demo
""",
}
"""Beginnings of specs: the real detector in a folder of `zoo_folder`, and the demo's."""


@contextmanager
def zoo_folder() -> Iterator[Path]:
    """Makes a folder that is gone afterwards.

    Yields:
        The folder: `detector.safetensors`; the image sets `coco-mini` and `coco-calib128` of
        QUANTSWEEP_REFERENCE_DATA; `pool`, the 208 training images of both, to draw calibration samples from and to
        train on, with their annotations `pool.json`.
    """
    if "QUANTSWEEP_REFERENCE_DATA" not in os.environ:
        sys.exit("QUANTSWEEP_REFERENCE_DATA does not name the folder with the real detector and COCO images")
    data = Path(os.environ["QUANTSWEEP_REFERENCE_DATA"]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in ("coco-mini", "coco-calib128"):
            (folder / images).symlink_to(data / images)
        (folder / "pool").mkdir()
        for images in ("coco-mini", "coco-calib128"):
            for path in sorted((data / images / "train2017").glob("*.jpg")):
                (folder / "pool" / path.name).unlink(missing_ok=True)
                (folder / "pool" / path.name).symlink_to(path)
        (folder / "pool.json").write_text(json.dumps(_joined(data)))
        quantsweep("model", "import", str(data / "models" / MODEL), "--out", str(folder / "detector.safetensors"))
        yield folder


def _joined(data: Path) -> dict[str, Any]:
    """Joins the annotations of the training images of both sets; annotations are numbered anew."""
    files = [data / name / "annotations" / "instances_train2017.json" for name in ("coco-mini", "coco-calib128")]
    found = [json.loads(path.read_text()) for path in files]
    images = {image["id"]: image for each in found for image in each["images"]}
    boxes = {(box["image_id"], box["id"]): box for each in found for box in each["annotations"]}
    annotations = [{**box, "id": number} for number, box in enumerate(boxes.values(), 1)]
    return {"images": list(images.values()), "annotations": annotations, "categories": found[0]["categories"]}


def swept(folder: Path, spec: str, *options: str) -> list[dict[str, Any]]:
    """Runs a sweep in a folder of `zoo_folder`, with the database and artifacts of earlier ones there.

    Args:
        folder: The folder.
        spec: Text of the spec.
        *options: Further options of the command.

    Returns:
        Rows of the leaderboard.
    """
    path = folder / "spec.yaml"
    path.write_text(spec)
    rows: list[dict[str, Any]] = json.loads(quantsweep("sweep", str(path), *places(folder), *options, "--json"))
    return rows


def places(folder: Path) -> list[str]:
    """Options that name the database and the artifacts of a folder."""
    return ["--db", str(folder / "results.db"), "--artifacts", str(folder / "artifacts")]


def quantsweep(*arguments: str) -> str:
    """Runs the command and returns what it prints."""
    command = [sys.executable, "-m", "orchestrator.cli.main", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
