"""Detects objects in images with the model beside this file.

    python detect.py IMAGE [IMAGE ...]

Needs quantsweep with the extra that README.md names. Everything else comes from provenance.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tasks.coco.image_file import ImageFile
from tasks.coco.preprocess import preprocess_shard
from tasks.detect import detect_shard
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec
from tasks.errors import QuantsweepError
from tasks.types import Postprocessing, RuntimeSettings

SHOWN_SCORE = 0.3
"""Detections below this are not printed; the model's own threshold, made for measuring AP, is far lower."""


def detect(folder: Path, images: list[str]) -> None:
    """Prints what is in some images.

    Args:
        folder: Where the model and provenance.json are.
        images: Image files.
    """
    made = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    spec = architecture(made["detector"]["architecture"])
    runtime = made["runtime"]
    settings = RuntimeSettings(runtime["name"], runtime["threads"], tuple(sorted(runtime["options"].items())))
    data = (folder / made["model"]["file"]).read_bytes()
    files = tuple(ImageFile(number, str(Path(path).resolve()), 0, 0) for number, path in enumerate(images))
    # uint8 RGB, resized as a whole; the session scales it to [-1, 1] in the element type of the model's input.
    shard = preprocess_shard(files, spec.image_size, cache=None)
    found = detect_shard(data, settings, spec, shard, Postprocessing(**made["postprocessing"]))
    for position, x, y, width, height, score, category in found.detections.tolist():
        if score >= SHOWN_SCORE:
            name = made["detector"]["categories"].get(str(int(category)), int(category))
            print(f"{images[int(position)]}: {name} {score:.2f} at x {x:.0f}, y {y:.0f}, {width:.0f} x {height:.0f}")


def architecture(values: dict[str, Any]) -> SSDMobileNetV1Spec:
    """Reads an architecture back, whose lists are tuples in Python."""
    anchors = values.pop("anchors")
    return SSDMobileNetV1Spec(anchors=AnchorSpec(**_with_tuples(anchors)), **_with_tuples(values))


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python detect.py IMAGE [IMAGE ...]")
    try:
        detect(Path(__file__).resolve().parent, sys.argv[1:])
    except QuantsweepError as error:
        sys.exit(f"detect.py: {error}")
