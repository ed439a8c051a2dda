"""Lanes: what a kind of task claims of a node, and the environment of its worker process."""

import os
from dataclasses import dataclass, field

_SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}


@dataclass(frozen=True)
class Lane:
    """A kind of place to run. Tasks of lanes with different environments never share a worker process."""

    name: str
    """What to call it in messages."""

    cpus: int | None = 1
    """CPUs that a task claims, or None for every CPU of its node, so that nothing else runs there."""

    environment: dict[str, str] = field(default_factory=lambda: dict(_SINGLE_THREADED))
    """Environment variables of the worker process."""

    wants_gpu: bool = False
    """Whether a task claims a GPU, too, if a node that takes it has one; it runs on CPUs where none has."""


LIGHT = Lane("light")
"""Work on NumPy, Pillow, LiteRT, ONNX Runtime, OpenVINO and the scorers: neither TensorFlow nor torch is
imported."""

TENSORFLOW = Lane(
    "tensorflow", environment={**_SINGLE_THREADED, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
)
"""Work that imports TensorFlow."""

TORCH = Lane("torch")
"""Work that imports torch."""

TRAINING_TENSORFLOW = Lane(
    "training on tensorflow",
    environment={**TENSORFLOW.environment, "TF_FORCE_GPU_ALLOW_GROWTH": "true"},
    wants_gpu=True,
)
"""Training with TensorFlow, which would take all memory of a GPU and keep it while torch has its turn there."""

TRAINING_TORCH = Lane("training on torch", wants_gpu=True)
"""Training with torch."""

BENCHMARK = Lane("benchmark", cpus=None)
"""Timing: alone on the one node that all benchmarks of a run share."""

LANES_BY_FRAMEWORK = {"none": LIGHT, "tensorflow": TENSORFLOW, "torch": TORCH}
"""The lane of a builder or runtime, by the framework that its worker imports."""

LANES_BY_TRAINER = {"keras": TRAINING_TENSORFLOW, "torch": TRAINING_TORCH}
"""The lane of a training."""


def available_cpus() -> int:
    """Counts the CPUs that this process may use.

    Returns:
        At least 1.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
