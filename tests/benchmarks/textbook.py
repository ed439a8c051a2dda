"""The textbook loop: convert one variant, evaluate it image by image, score with pycocotools. Not ours: a yardstick."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.detector.anchors import anchors
from tasks.detector.keras_model import build_keras
from tasks.detector.weights import Detector


def textbook_ap(detector_file: Path, data: Path, variant: dict[str, Any], threshold: float) -> float:
    """Converts and evaluates one variant.

    Args:
        detector_file: The imported detector.
        data: The reference data.
        variant: A row of the leaderboard.
        threshold: Detections scored at or below this are dropped.

    Returns:
        AP.
    """
    detector = Detector.load(detector_file)
    size = detector.spec.image_size
    calibration = sorted((data / "coco-calib128" / "train2017").glob("*.jpg"))[: variant["calibration_images"] or 0]
    model = _convert(detector, variant, lambda: (_read(path, size)[0] for path in calibration))
    return _evaluate(model, detector, data / "coco-mini", threshold)


def _read(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(small, np.float32)[None] / 127.5 - 1, image.size


def _convert(detector: Detector, variant: dict[str, Any], images: Any) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(build_keras(detector))
    if variant["toolchain"] == "litert_quantizer":
        return _quantize(converter.convert(), variant, images)
    if variant["scheme"] != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant["scheme"] == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant["scheme"] == "static_int8":
        converter.representative_dataset = lambda: ([image] for image in images())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter._experimental_disable_per_channel = variant["granularity"] == "per_tensor"
    return converter.convert()


def _quantize(model: bytes, variant: dict[str, Any], images: Any) -> bytes:
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import qtyping, quantizer, recipe

    per_tensor = variant["granularity"] == "per_tensor"
    granularity = qtyping.QuantGranularity.TENSORWISE if per_tensor else qtyping.QuantGranularity.CHANNELWISE
    work = quantizer.Quantizer(model)
    if variant["scheme"] == "dynamic_int8":
        work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        return bytes(work.quantize().quantized_model)
    work.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=granularity,
    )
    signature, details = next(iter(Interpreter(model_content=model).get_signature_list().items()))
    name = details["inputs"][0]
    result = work.calibrate({signature: [{name: image} for image in images()]})
    return bytes(work.quantize(result).quantized_model)


def _evaluate(model: bytes, detector: Detector, data: Path, threshold: float) -> float:
    from ai_edge_litert.interpreter import Interpreter
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    places, results = anchors(detector.spec), []
    annotations = data / "annotations" / "instances_val2017.json"
    for image in json.loads(annotations.read_text())["images"]:
        pixels, (width, height) = _read(data / "val2017" / image["file_name"], detector.spec.image_size)
        details = interpreter.get_input_details()[0]
        interpreter.set_tensor(details["index"], _quantized(pixels, details))
        interpreter.invoke()
        outputs = [_real(interpreter.get_tensor(item["index"])[0], item) for item in interpreter.get_output_details()]
        boxes, scores = sorted(outputs, key=lambda array: array.shape[-1])
        for box, score, category in _suppress(_decode(boxes, places), scores, detector.spec.class_ids, threshold):
            top, left, bottom, right = (box * (height, width, height, width)).tolist()
            results.append(
                {"image_id": image["id"], "category_id": category, "score": score,
                 "bbox": [left, top, right - left, bottom - top]}
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _quantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if scale == 0:
        return values
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(values / scale + zero_point), limits.min, limits.max).astype(details["dtype"])


def _real(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    return values if scale == 0 else (values.astype(np.float32) - zero_point) * np.float32(scale)


def _decode(encoded: np.ndarray, places: np.ndarray) -> np.ndarray:
    centres = encoded[:, :2] / 10 * places[:, 2:] + places[:, :2]
    sizes = np.exp(encoded[:, 2:] / 5) * places[:, 2:]
    return np.clip(np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1), 0, 1)


def _suppress(
    boxes: np.ndarray, scores: np.ndarray, class_ids: tuple[int, ...], threshold: float
) -> list[tuple[np.ndarray, float, int]]:
    found = []
    for column, category in enumerate(class_ids):
        if category == 0:
            continue
        index = np.flatnonzero(scores[:, column] > threshold)
        for kept in _nms(boxes[index], scores[index, column]):
            found.append((boxes[index[kept]], float(scores[index[kept], column]), category))
    return sorted(found, key=lambda item: -item[1])[:100]


def _nms(boxes: np.ndarray, scores: np.ndarray) -> Iterator[int]:
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-scores, kind="stable")
    while len(order):
        best, rest = order[0], order[1:]
        yield int(best)
        top_left = np.maximum(boxes[best, :2], boxes[rest, :2])
        bottom_right = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=1)
        union = areas[best] + areas[rest] - overlap
        order = rest[overlap / np.maximum(union, 1e-12) <= 0.6]
