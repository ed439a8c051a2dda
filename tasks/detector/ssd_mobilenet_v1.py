"""The SSD MobileNetV1 architecture as a spec, and the layer table that every build is made from.

Source: TensorFlow Object Detection API (TF1), `slim/nets/mobilenet_v1.py` (backbone),
`models/feature_map_generators.py: multi_resolution_feature_maps` (extra layers),
`predictors/convolutional_box_predictor.py` (heads), `anchor_generators/multiple_grid_anchor_generator.py`.
"""

from dataclasses import dataclass, field
from typing import Literal

BACKBONE: tuple[tuple[int, int], ...] = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
"""(output channels at depth multiplier 1, stride) of the 13 depthwise separable blocks, `_CONV_DEFS`."""


@dataclass(frozen=True)
class AnchorSpec:
    """Settings of the SSD anchor generator."""

    min_scale: float = 0.2
    """Scale of the anchors on the finest feature map, as a share of the image side."""

    max_scale: float = 0.95
    """Scale of the anchors on the coarsest feature map."""

    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 0.5, 3.0, 1.0 / 3.0)
    """Width / height of the anchors at each location."""

    interpolated_scale_aspect_ratio: float = 1.0
    """Aspect ratio of the additional anchor whose scale lies between this map's and the next one's; 0 for none."""

    reduce_boxes_in_lowest_layer: bool = True
    """Whether the finest map has only three anchors a location: scale 0.1, and aspect ratios 2 and 1/2."""


@dataclass(frozen=True)
class SSDMobileNetV1Spec:
    """Everything that fixes the graph of a detector, without its weights."""

    depth_multiplier: float = 1.0
    """Factor on all channel numbers of backbone and extra layers, above 0."""

    image_size: int = 300
    """Side of the square input in pixels."""

    class_ids: tuple[int, ...] = tuple(range(91))
    """COCO category id of each score column; 0 is the background column, never detected."""

    class_names: tuple[str, ...] = ()
    """Name of each score column, or empty if not known."""

    anchors: AnchorSpec = field(default_factory=AnchorSpec)
    """Settings of the anchor generator."""

    min_depth: int = 16
    """Least number of channels of a backbone or extra layer."""

    source_blocks: tuple[int, ...] = (11, 13)
    """Backbone blocks (1 to 13) whose pointwise outputs carry heads, finest first; the last is always 13."""

    extra_depths: tuple[int, ...] = (512, 256, 256, 128)
    """Output channels at depth multiplier 1 of the extra stride-2 layers, each of which carries heads."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.depth_multiplier <= 0:
            raise ValueError(f"depth_multiplier is {self.depth_multiplier}; it must be above 0")
        if self.image_size < 32:
            raise ValueError(f"image_size is {self.image_size}; it must be at least 32")
        if (
            not self.source_blocks
            or self.source_blocks[-1] != 13
            or list(self.source_blocks) != sorted(set(self.source_blocks))
        ):
            raise ValueError(f"source_blocks is {self.source_blocks}; it must rise and end with 13")
        if len(set(self.class_ids)) != len(self.class_ids) or not any(self.class_ids):
            raise ValueError("class_ids must be distinct and hold at least one category other than background (0)")
        if self.class_names and len(self.class_names) != len(self.class_ids):
            raise ValueError(f"{len(self.class_names)} class_names for {len(self.class_ids)} class_ids")

    def depth(self, channels: int) -> int:
        """Returns the number of channels after the depth multiplier."""
        return max(int(channels * self.depth_multiplier), self.min_depth)

    @property
    def feature_maps(self) -> int:
        """Number of feature maps that carry heads."""
        return len(self.source_blocks) + len(self.extra_depths)

    def anchors_per_location(self, feature_map: int) -> int:
        """Returns how many anchors each location of a feature map (0 is the finest) has."""
        if feature_map == 0 and self.anchors.reduce_boxes_in_lowest_layer:
            return 3
        return len(self.anchors.aspect_ratios) + (self.anchors.interpolated_scale_aspect_ratio > 0)


@dataclass(frozen=True)
class Layer:
    """One convolution of the detector."""

    name: str
    """Canonical name, the prefix of its tensors: `Conv2d_0`, `Conv2d_1_depthwise`, `Conv2d_1_pointwise`, ...,
    `Extra_0_1x1`, `Extra_0_3x3`, ..., `BoxPredictor_0_boxes`, `BoxPredictor_0_scores`, ..."""

    kind: Literal["conv", "depthwise", "head"]
    """`conv` and `depthwise` are followed by ReLU6, `head` by nothing. Padding is SAME everywhere."""

    source: str
    """Name of the layer whose output this one reads, or `image`."""

    kernel: int
    """Side of the square kernel."""

    stride: int
    """Step in both directions."""

    in_channels: int
    out_channels: int
    """Channels of input and output."""

    out_size: int
    """Side of the square output in pixels."""

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """Shape of `NAME/weights`: (height, width, in, out), or (height, width, channels, 1) if depthwise."""
        if self.kind == "depthwise":
            return self.kernel, self.kernel, self.in_channels, 1
        return self.kernel, self.kernel, self.in_channels, self.out_channels

    @property
    def parameters(self) -> int:
        """Number of weights and biases (batch norm folded)."""
        height, width, inner, outer = self.weights_shape
        return height * width * inner * outer + self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        height, width, inner, outer = self.weights_shape
        return self.out_size**2 * height * width * inner * outer


def layers(spec: SSDMobileNetV1Spec) -> tuple[Layer, ...]:
    """Lists the convolutions of a detector in the order of execution: backbone, extra layers, heads by feature map.

    Args:
        spec: The architecture.

    Returns:
        The layer table. `BoxPredictor_I_boxes` has anchors * 4 channels, `BoxPredictor_I_scores` anchors * classes.
    """
    table: list[Layer] = []

    def add(name: str, kind: Literal["conv", "depthwise", "head"], source: str, kernel: int, stride: int, inner: int,
            outer: int, size: int) -> Layer:  # fmt: skip
        layer = Layer(name, kind, source, kernel, stride, inner, outer, -(-size // stride))
        table.append(layer)
        return layer

    last = add("Conv2d_0", "conv", "image", 3, 2, 3, spec.depth(32), spec.image_size)
    sources: list[Layer] = []
    for block, (channels, stride) in enumerate(BACKBONE, start=1):
        inner = last.out_channels
        last = add(f"Conv2d_{block}_depthwise", "depthwise", last.name, 3, stride, inner, inner, last.out_size)
        last = add(f"Conv2d_{block}_pointwise", "conv", last.name, 1, 1, inner, spec.depth(channels), last.out_size)
        if block in spec.source_blocks:
            sources.append(last)
    for index, channels in enumerate(spec.extra_depths):
        last = add(f"Extra_{index}_1x1", "conv", last.name, 1, 1, last.out_channels, spec.depth(channels // 2),
                   last.out_size)  # fmt: skip
        last = add(f"Extra_{index}_3x3", "conv", last.name, 3, 2, last.out_channels, spec.depth(channels),
                   last.out_size)  # fmt: skip
        sources.append(last)
    for index, source in enumerate(sources):
        anchors = spec.anchors_per_location(index)
        for role, width in (("boxes", 4), ("scores", len(spec.class_ids))):
            add(f"BoxPredictor_{index}_{role}", "head", source.name, 1, 1, source.out_channels, anchors * width,
                source.out_size)  # fmt: skip
    return tuple(table)


def feature_map_sizes(spec: SSDMobileNetV1Spec) -> tuple[int, ...]:
    """Returns the side of each feature map that carries heads, finest first."""
    return tuple(layer.out_size for layer in layers(spec) if layer.name.endswith("_boxes"))
