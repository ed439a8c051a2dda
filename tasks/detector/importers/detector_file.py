"""The detector's own file, which imports as itself."""

from pathlib import Path

from tasks.detector.importers.importer import Importer, first_bytes
from tasks.detector.weights import Detector


def _recognizes(path: Path) -> bool:
    return first_bytes(path, 9)[8:] == b"{" or (path.is_file() and path.suffix == ".safetensors")


IMPORTER = Importer("a detector.safetensors made by `quantsweep model import`", _recognizes, Detector.load)
