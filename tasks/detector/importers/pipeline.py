"""Configurations of the TF1 Object Detection API (`pipeline.config`): the architecture that they describe."""

from pathlib import Path

import numpy as np

from tasks.detector.boxes import CENTER_SCALE, SIZE_SCALE
from tasks.detector.importers.text_proto import Message, parse
from tasks.detector.importers.tf1 import SOURCE_BLOCKS
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec
from tasks.errors import ModelMistake

CONFIG = "pipeline.config"
"""Their usual name."""


def read_pipeline(path: Path) -> Message:
    """Reads a pipeline configuration.

    Args:
        path: A `pipeline.config`.

    Returns:
        Its fields.

    Raises:
        ModelMistake: If it is no text, or none that follows the language.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ModelMistake(f"{path} is not a text file ({error})") from error
    except OSError as error:
        raise ModelMistake(f"{path} cannot be read: {error.strerror}") from error


def spec_from_pipeline(pipeline: Message, origin: str) -> SSDMobileNetV1Spec:
    """Reads the architecture from a pipeline configuration.

    Args:
        pipeline: The parsed `pipeline.config`.
        origin: What to call the file in an error.

    Returns:
        The architecture. Score columns are COCO ids counted from 0, the background.

    Raises:
        ModelMistake: If it configures something else than an SSD MobileNetV1, or settings that are not supported.
    """
    ssd = pipeline.message("model", "ssd")
    _refuse_unsupported(ssd, origin)
    extractor, resizer = ssd.message("feature_extractor"), ssd.message("image_resizer", "fixed_shape_resizer")
    try:
        return SSDMobileNetV1Spec(
            depth_multiplier=_plain(extractor.number("depth_multiplier", 1.0)),
            image_size=int(resizer.number("width", 300)),
            class_ids=tuple(range(int(ssd.number("num_classes", 0)) + 1)),
            anchors=_anchor_spec(ssd.message("anchor_generator", "ssd_anchor_generator")),
            min_depth=int(extractor.number("min_depth", 16)),
            source_blocks=SOURCE_BLOCKS,
        )
    except ValueError as error:
        raise ModelMistake(f"{origin} configures no usable detector: {error}") from error


def choice_of(message: Message) -> str:
    """Returns which alternative of a `oneof` is written; `none` if none is, which TensorFlow refuses to build.

    Args:
        message: One that holds nothing but the alternatives.
    """
    return message.fields[-1][0] if message.fields else "none"


def _anchor_spec(generator: Message) -> AnchorSpec:
    usual = AnchorSpec()
    ratios = [value for value in generator.scalars("aspect_ratios") if isinstance(value, float)]
    between = generator.number("interpolated_scale_aspect_ratio", usual.interpolated_scale_aspect_ratio)
    return AnchorSpec(
        min_scale=_plain(generator.number("min_scale", usual.min_scale)),
        max_scale=_plain(generator.number("max_scale", usual.max_scale)),
        aspect_ratios=tuple(_plain(ratio) for ratio in ratios),
        interpolated_scale_aspect_ratio=_plain(between),
        reduce_boxes_in_lowest_layer=generator.flag("reduce_boxes_in_lowest_layer", True),
    )


def _plain(number: float) -> float:
    """Returns the shortest decimal of the float32: the configurations write 0.95 as 0.949999988079."""
    return float(str(np.float32(number)))


def _refuse_unsupported(ssd: Message, origin: str) -> None:
    extractor = ssd.message("feature_extractor")
    predictor = ssd.message("box_predictor", "convolutional_box_predictor")
    generator = ssd.message("anchor_generator", "ssd_anchor_generator")
    coder = ssd.message("box_coder", "faster_rcnn_box_coder")
    resizer = ssd.message("image_resizer", "fixed_shape_resizer")
    hyperparameters = extractor.message("conv_hyperparams")
    got_and_wanted: dict[str, tuple[object, object]] = {
        "feature_extractor type": (extractor.text("type", ""), "ssd_mobilenet_v1"),
        "feature_extractor activation": (hyperparameters.text("activation", "RELU"), "RELU_6"),
        "feature_extractor use_depthwise": (extractor.flag("use_depthwise", False), False),
        "image_resizer height": (resizer.number("height", 0), resizer.number("width", 300)),
        "box_predictor kernel_size": (predictor.number("kernel_size", 1), 1),
        "box_predictor num_layers_before_predictor": (predictor.number("num_layers_before_predictor", 0), 0),
        "box_predictor use_depthwise": (predictor.flag("use_depthwise", False), False),
        "box_predictor box_code_size": (predictor.number("box_code_size", 4), 4),
        "anchor_generator num_layers": (generator.number("num_layers", 6), 6),
        "anchor_generator scales": (generator.scalars("scales"), []),
        "anchor_generator base_anchor_height": (generator.number("base_anchor_height", 1), 1),
        "anchor_generator base_anchor_width": (generator.number("base_anchor_width", 1), 1),
        "box_coder": (choice_of(ssd.message("box_coder")), "faster_rcnn_box_coder"),
        "score_converter": (ssd.message("post_processing").text("score_converter", "IDENTITY"), "SIGMOID"),
        **{f"box_coder {name}": (coder.number(name, CENTER_SCALE), CENTER_SCALE) for name in ("y_scale", "x_scale")},
        **{
            f"box_coder {name}": (coder.number(name, SIZE_SCALE), SIZE_SCALE)
            for name in ("height_scale", "width_scale")
        },
    }
    wrong = [f"{name} is {got}, not {wanted}" for name, (got, wanted) in got_and_wanted.items() if got != wanted]
    if wrong:
        raise ModelMistake(f"{origin} is not of a supported SSD MobileNetV1: {'; '.join(wrong)}")
