"""The torch build of a detector. Import this module inside functions only: it imports torch."""

from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import RELU6_CAP, Detector


class Convolution(nn.Conv2d):
    """A convolution with SAME padding and the activation of its layer."""

    def __init__(self, layer: Layer, in_size: int, weights: np.ndarray, bias: np.ndarray, cap: np.ndarray | None):
        """Takes the weights of a layer.

        Args:
            layer: The layer.
            in_size: Side of its input in pixels.
            weights: (height, width, in, out), or (height, width, channels, 1) if depthwise.
            bias: (out,).
            cap: (out,) upper bound of each output channel in place of 6, or None.
        """
        before, after = same_padding(in_size, layer.kernel, layer.stride)
        groups = layer.in_channels if layer.kind == "depthwise" else 1
        # torch pads both sides alike; where SAME does not, a padding of its own comes first.
        is_even = before == after
        super().__init__(
            layer.in_channels, layer.out_channels, layer.kernel, layer.stride, before if is_even else 0, groups=groups
        )
        self.uneven = None if is_even else (before, after, before, after)
        self.is_rectified = layer.kind != "head"
        self.is_bounded_by_6 = cap is None or float(cap.max()) <= RELU6_CAP
        order = (2, 3, 0, 1) if layer.kind == "depthwise" else (3, 2, 0, 1)
        self.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weights.transpose(order))), False)
        self.bias = nn.Parameter(torch.from_numpy(bias.copy()), False)
        self.register_buffer("cap", None if cap is None else torch.from_numpy(cap.copy())[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pads, convolves and bounds."""
        padded = images if self.uneven is None else nn.functional.pad(images, self.uneven)
        result = super().forward(padded)
        if not self.is_rectified:
            return result
        result = nn.functional.relu6(result) if self.is_bounded_by_6 else nn.functional.relu(result)
        return result if self.cap is None else torch.minimum(result, self.cap)


class SSDMobileNetV1(nn.Module):
    """A detector. Its convolutions are submodules of the canonical names."""

    def __init__(self, detector: Detector) -> None:
        """Builds the convolutions.

        Args:
            detector: Architecture and weights.
        """
        super().__init__()
        self.table = layers(detector.spec)
        self.widths = {"boxes": 4, "scores": len(detector.spec.class_ids)}
        sizes = {"image": detector.spec.image_size}
        for layer in self.table:
            found: Any = (detector.tensors.get(f"{layer.name}/{role}") for role in ("weights", "bias", "cap"))
            self.add_module(layer.name, Convolution(layer, sizes[layer.source], *found))
            sizes[layer.name] = layer.out_size

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the detector, in the element type of its weights.

        Args:
            images: (B, 3, S, S) float32 RGB in [-1, 1], in any memory layout.

        Returns:
            `boxes`, (B, A, 4) float32 [ty, tx, th, tw] encoded against the anchors, and `scores`, (B, A, classes)
            float32 after the sigmoid.
        """
        boxes, logits = self.codes_and_logits(images)
        return boxes, torch.sigmoid(logits)

    def codes_and_logits(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the detector up to the sigmoid.

        Args:
            images: As `forward`.

        Returns:
            `boxes` as `forward`, and the scores before the sigmoid.
        """
        outputs = {"image": images.to(self.get_submodule(self.table[0].name).weight.dtype)}
        heads: dict[str, list[torch.Tensor]] = {"boxes": [], "scores": []}
        for layer in self.table:
            result = outputs[layer.name] = self.get_submodule(layer.name)(outputs[layer.source])
            if layer.kind == "head":
                role = layer.name.rsplit("_", 1)[1]
                heads[role].append(result.permute(0, 2, 3, 1).reshape(result.shape[0], -1, self.widths[role]))
        boxes, logits = (torch.cat(parts, 1).float() for parts in heads.values())
        return boxes, logits


class TrainableSSDMobileNetV1(SSDMobileNetV1):
    """A detector whose weights may learn, and whose scores are those before the sigmoid."""

    def __init__(self, detector: Detector) -> None:
        """Builds the convolutions.

        Args:
            detector: Architecture and weights.
        """
        super().__init__(detector)
        self.requires_grad_(True)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `SSDMobileNetV1.codes_and_logits`."""
        return self.codes_and_logits(images)


def build_torch(detector: Detector) -> SSDMobileNetV1:
    """Builds a detector in torch, for inference in float32 and torch's usual memory layout.

    Args:
        detector: Architecture and weights.

    Returns:
        The module. `module.to(memory_format=torch.channels_last)` and `module.to(torch.bfloat16)` change it.
    """
    return SSDMobileNetV1(detector).eval()


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns TensorFlow's SAME padding (before, after) of one dimension, in pixels.

    Args:
        size: Side of the input in pixels.
        kernel: Side of the kernel in pixels.
        stride: Step.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
