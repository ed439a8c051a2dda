"""The built-in detector: a small SSD MobileNetV1, trained on the synthetic set by `tasks.detector.train`."""

from pathlib import Path

from tasks.detector.weights import Detector

DEMO_FILE = Path(__file__).with_name("demo.safetensors")
"""Weights of the built-in detector."""


def demo_detector() -> Detector:
    """Loads the built-in detector."""
    return Detector.load(DEMO_FILE)
