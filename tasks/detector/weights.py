"""Detectors: an architecture and its canonical float weights, kept in one safetensors file."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tasks.detector.loss import LossSettings
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec, layers
from tasks.errors import ModelMistake
from tasks.identity import sha256_of

RELU6_CAP = 6.0
"""Greatest activation of the layers without caps of their own."""

_SPEC_KEY = "quantsweep.ssd_mobilenet_v1"
_LOSS_KEY = "quantsweep.loss"


@dataclass(frozen=True, eq=False)
class Detector:
    """An SSD MobileNetV1 with float32 weights, batch norm folded."""

    spec: SSDMobileNetV1Spec
    """The architecture."""

    tensors: dict[str, np.ndarray]
    """`LAYER/weights` (HWIO; depthwise HWC1) and `LAYER/bias` (channels,) of each layer, float32. The input that
    they expect is RGB in [-1, 1]. A layer that is not a head may have `LAYER/cap` (channels,): the greatest activation
    of each channel, above 0, in place of the 6 of ReLU6."""

    loss: LossSettings | None = None
    """What it was trained with, None if nobody knows."""

    def __post_init__(self) -> None:
        """Checks names, shapes and finiteness against the layer table."""
        expected: dict[str, tuple[int, ...]] = {}
        for layer in layers(self.spec):
            expected[f"{layer.name}/weights"] = layer.weights_shape
            expected[f"{layer.name}/bias"] = (layer.out_channels,)
            if layer.kind != "head" and f"{layer.name}/cap" in self.tensors:
                expected[f"{layer.name}/cap"] = (layer.out_channels,)
        missing, unknown = expected.keys() - self.tensors.keys(), self.tensors.keys() - expected.keys()
        if missing or unknown:
            raise ModelMistake(
                f"the detector lacks the tensors {sorted(missing)[:3]} and has the unknown {sorted(unknown)[:3]}"
            )
        for name, shape in expected.items():
            tensor = self.tensors[name]
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise ModelMistake(f"{name} is {tensor.dtype}{tensor.shape}; the architecture wants float32{shape}")
            if not np.isfinite(tensor).all():
                raise ModelMistake(f"{name} holds values that are not finite")
            if name.endswith("/cap") and not (tensor > 0).all():
                raise ModelMistake(f"{name} holds {tensor.min()}; a cap must be above 0")

    @cached_property
    def sha256(self) -> str:
        """Hash of the file that `to_bytes` makes."""
        return sha256_of(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Returns the content of the detector's safetensors file, the same bytes for equal detectors."""
        ordered = {name: np.ascontiguousarray(self.tensors[name]) for name in sorted(self.tensors)}
        data = save(ordered, metadata={_SPEC_KEY: json.dumps(asdict(self.spec), sort_keys=True)})
        if self.loss is None:
            return data
        return with_metadata(data, _LOSS_KEY, json.dumps(asdict(self.loss), sort_keys=True))

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> "Detector":
        """Reads a detector.

        Args:
            data: Content of a safetensors file made by `to_bytes`.
            origin: What to call the file in an error.

        Returns:
            The detector.

        Raises:
            ModelMistake: If the content is not a detector.
        """
        metadata = metadata_of(data, origin)
        try:
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ModelMistake(f"{origin} is not a safetensors file ({error})") from error
        if _SPEC_KEY not in metadata:
            raise ModelMistake(
                f"{origin} is a safetensors file but not a detector; make one with `quantsweep model import`"
            )
        try:
            spec = _spec_from_json(metadata[_SPEC_KEY])
        except (TypeError, ValueError) as error:
            raise ModelMistake(f"{origin} has an architecture that cannot be read: {error}") from error
        try:
            loss = LossSettings(**json.loads(metadata[_LOSS_KEY])) if _LOSS_KEY in metadata else None
        except (TypeError, ValueError) as error:
            raise ModelMistake(f"{origin} has a training loss that cannot be read: {error}") from error
        return cls(spec, tensors, loss)

    @classmethod
    def load(cls, path: Path) -> "Detector":
        """Reads a detector's file.

        Args:
            path: A safetensors file made by `quantsweep model import`.

        Returns:
            The detector.

        Raises:
            ModelMistake: If there is no such file or it is not a detector.
        """
        if not path.is_file():
            raise ModelMistake(f"there is no detector file {path}")
        return cls.from_bytes(path.read_bytes(), str(path))


def metadata_of(data: bytes, origin: str) -> dict[str, str]:
    """Reads the metadata of a safetensors file.

    Args:
        data: Content of the file.
        origin: What to call the file in an error.

    Returns:
        Text by key; empty if the file has none.

    Raises:
        ModelMistake: If the content is not a safetensors file.
    """
    try:
        metadata: dict[str, str] = _header(data)[0].get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise ModelMistake(f"{origin} is not a safetensors file ({error})") from error
    return metadata


def with_metadata(data: bytes, key: str, value: str) -> bytes:
    """Adds metadata to a safetensors file.

    The library writes metadata in an order that changes from call to call; here equal content gives equal bytes.

    Args:
        data: Content of a safetensors file.
        key: Its name.
        value: Text.

    Returns:
        Content of the file with the metadata added.
    """
    header, start = _header(data)
    header["__metadata__"] = {**header.get("__metadata__", {}), key: value}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def _header(data: bytes) -> tuple[Any, int]:
    """Returns the header of a safetensors file and where the values start."""
    start = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:start]), start


def _spec_from_json(text: str) -> SSDMobileNetV1Spec:
    values: dict[str, Any] = json.loads(text)
    anchors = values.pop("anchors")
    anchors["aspect_ratios"] = tuple(anchors["aspect_ratios"])
    tuples: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return SSDMobileNetV1Spec(anchors=AnchorSpec(**anchors), **tuples)
