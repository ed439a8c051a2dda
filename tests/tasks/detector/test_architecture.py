"""The architecture is found again from the shapes that it gives."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.detector.anchors import anchors
from tasks.detector.importers.architecture import Shapes, StoredAnchors, infer_spec
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec, layers
from tasks.errors import ModelMistake


def _shapes(spec: SSDMobileNetV1Spec) -> Shapes:
    def widths(*ends: str) -> tuple[int, ...]:
        return tuple(layer.out_channels for layer in layers(spec) if layer.name.endswith(ends))

    return Shapes(
        image_size=spec.image_size,
        backbone=widths("Conv2d_0", "_pointwise"),
        extras=widths("_3x3"),
        source_blocks=spec.source_blocks,
        box_channels=widths("_boxes"),
        score_channels=widths("_scores"),
    )


@pytest.mark.parametrize("multiplier", [1.0, 0.75, 0.5, 0.35, 0.25, 0.1, 1.4, 0.8125])
@pytest.mark.parametrize("min_depth", [16, 8])
def test_depth_multiplier_is_read_from_the_widths(multiplier: float, min_depth: int) -> None:
    spec = SSDMobileNetV1Spec(depth_multiplier=multiplier, class_ids=(0, 1, 2), min_depth=min_depth)
    found = infer_spec(_shapes(spec), None, "file")
    assert layers(found) == layers(spec)
    assert found.depth_multiplier == pytest.approx(multiplier, abs=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        AnchorSpec(),
        AnchorSpec(min_scale=0.15, max_scale=0.9),
        AnchorSpec(aspect_ratios=(1.0, 2.0, 0.5)),
        AnchorSpec(aspect_ratios=(1.0, 2.0, 0.5, 3.0, 0.3333), interpolated_scale_aspect_ratio=0.0),
        AnchorSpec(reduce_boxes_in_lowest_layer=False),
    ],
)
def test_anchor_settings_are_read_from_stored_anchors(settings: AnchorSpec) -> None:
    spec = SSDMobileNetV1Spec(anchors=settings, source_blocks=(11, 13))
    found = infer_spec(_shapes(spec), StoredAnchors(anchors(spec), 1e-5), "file")
    np.testing.assert_allclose(anchors(found), anchors(spec), atol=1e-5)
    assert found.anchors.aspect_ratios == pytest.approx(settings.aspect_ratios, abs=1e-5)
    assert replace(found.anchors, aspect_ratios=settings.aspect_ratios) == settings


def test_other_anchors_are_refused() -> None:
    spec = SSDMobileNetV1Spec()
    shifted = anchors(spec) + np.float32(0.01)
    with pytest.raises(ModelMistake, match="not those of an SSD anchor generator"):
        infer_spec(_shapes(spec), StoredAnchors(shifted, 1e-3), "file")


def test_other_backbones_are_refused() -> None:
    shapes = _shapes(SSDMobileNetV1Spec())
    widths = (*shapes.backbone[:-1], 1000)
    other = Shapes(shapes.image_size, widths, shapes.extras, (11, 13), shapes.box_channels, shapes.score_channels)
    with pytest.raises(ModelMistake, match="is no multiple of"):
        infer_spec(other, None, "file")
