"""Scenes: the few images that latency is measured on, with what postprocessing needs to know."""

import io
from dataclasses import dataclass, fields

import numpy as np

from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.types import ImageShard

SCENE = "scene.npz"
"""Name of the file, or suffix, that a scene is kept in."""

SCENE_IMAGES = 8
"""Images of a scene, at most."""


@dataclass(frozen=True)
class Scene:
    """What artifacts run on while they are timed."""

    pixels: np.ndarray
    """(N, S, S, 3) uint8 RGB."""

    sizes: np.ndarray
    """(N, 2) [height, width] of each original image in pixels."""

    anchors: np.ndarray
    """(A, 4) of the detector."""

    class_ids: np.ndarray
    """(C,) category ids."""

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def of(cls, images: ImageShard, spec: SSDMobileNetV1Spec) -> "Scene":
        """Takes the first images of a shard.

        Args:
            images: Preprocessed images.
            spec: Architecture of the detector.

        Returns:
            A scene of at most `SCENE_IMAGES` images.
        """
        return cls(images.pixels[:SCENE_IMAGES], images.sizes[:SCENE_IMAGES], anchors(spec), np.array(spec.class_ids))

    def to_bytes(self) -> bytes:
        """Writes it as an .npz file."""
        buffer = io.BytesIO()
        np.savez(buffer, **{item.name: getattr(self, item.name) for item in fields(self)})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Scene":
        """Reads what `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            return cls(**content)
