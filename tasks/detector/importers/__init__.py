"""Importers: every format that a detector can be read from."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.detector.importers import detector_file, tf1_checkpoint, tf1_frozen_graph, tflite
from tasks.detector.importers.importer import Importer
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake

IMPORTERS: tuple[Importer, ...] = (
    detector_file.IMPORTER,
    tflite.IMPORTER,
    tf1_checkpoint.IMPORTER,
    tf1_frozen_graph.IMPORTER,
)
"""Tried in this order; the first that recognizes a path reads it."""


def import_detector(path: Path) -> Detector:
    """Reads a detector from any known format.

    Args:
        path: A file, or the folder of a TF1 checkpoint.

    Returns:
        The detector, batch norm folded and weights de-quantized to float32. Denormal numbers, such as weights of dead
        channels decay to, are zeros: some runtimes take 10 to 90 times as long on them.

    Raises:
        ModelMistake: If there is no such path, no importer recognizes it, or it holds no SSD MobileNetV1.
    """
    if not path.exists():
        raise ModelMistake(f"there is no file or folder {path}")
    try:
        for importer in IMPORTERS:
            if importer.recognizes(path):
                return _without_denormals(importer.read(path))
    except OSError as error:
        raise ModelMistake(f"{path} cannot be read: {error.strerror or error}") from error
    choices = "; ".join(importer.source for importer in IMPORTERS)
    raise ModelMistake(f"{path} is in no format that can be imported; choices: {choices}")


def _without_denormals(detector: Detector) -> Detector:
    least = np.finfo(np.float32).tiny
    # Caps must stay above 0.
    return replace(
        detector,
        tensors={
            name: values if name.endswith("/cap") else np.where(np.abs(values) < least, np.float32(0), values)
            for name, values in detector.tensors.items()
        },
    )
