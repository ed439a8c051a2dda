"""A small graph with a detector's input and outputs, made in milliseconds without a framework."""

import functools

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tasks.detector.anchors import anchors
from tests.tasks.runtimes.tiny_detector import CLASS_IDS, tiny_detector


@functools.cache
def tiny_onnx(ballast_bytes: int = 0, width: int = 64) -> bytes:
    """Makes a graph that takes and gives what the tiny detector does.

    Args:
        ballast_bytes: Size of weights of one more convolution, which has a single place to compute.
        width: Channels of the two others.

    Returns:
        Content of an .onnx file.
    """
    size, found = tiny_detector().spec.image_size, len(anchors(tiny_detector().spec))
    filters = max(ballast_bytes // 4 // width, 1)
    weights = {
        "first": (width, 3, 3, 3),
        "second": (width, width, 3, 3),
        "ballast": (filters, width, 1, 1),
    }
    random = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(random.normal(0, 0.1, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    numbers = {
        "start": [0],
        "boxes_end": [found * 4],
        "scores_end": [found * len(CLASS_IDS)],
        "axis": [1],
        "row": [1, -1],
        "boxes_shape": [1, found, 4],
        "scores_shape": [1, found, len(CLASS_IDS)],
    }
    constants += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    halving = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], name="first", **halving),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], name="second", **halving),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "ballast"], ["d"], name="ballast"),
        helper.make_node("ReduceMean", ["d"], ["e"], keepdims=1),
        helper.make_node("Add", ["c", "e"], ["f"]),
        helper.make_node("Reshape", ["f", "row"], ["g"]),
        helper.make_node("Slice", ["g", "start", "boxes_end", "axis"], ["h"]),
        helper.make_node("Reshape", ["h", "boxes_shape"], ["boxes"]),
        helper.make_node("Slice", ["g", "start", "scores_end", "axis"], ["i"]),
        helper.make_node("Sigmoid", ["i"], ["j"]),
        helper.make_node("Reshape", ["j", "scores_shape"], ["scores"]),
    ]
    shapes = {"images": [1, 3, size, size], "boxes": [1, found, 4], "scores": [1, found, len(CLASS_IDS)]}
    image, boxes, scores = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    graph = helper.make_graph(nodes, "tiny", [image], [boxes, scores], constants)
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())
