"""Importer of TF1 frozen graphs (`frozen_inference_graph.pb`): a GraphDef whose variables have become constants."""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.detector.importers.architecture import Shapes, StoredAnchors, infer_spec
from tasks.detector.importers.importer import Importer, first_bytes
from tasks.detector.importers.tf1 import SOURCE_BLOCKS, detector_of, scopes
from tasks.detector.ssd_mobilenet_v1 import BACKBONE
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake

_ANCHORS = "MultipleGridAnchorGenerator/Concatenate/concat"
_IMAGE = "image_tensor"
_RESIZE_OPERATIONS = ("ResizeBilinear", "ResizeNearestNeighbor")
_DEFAULT_EPSILON = 0.001
"""What TF1's configurations and slim's `batch_norm` use."""


def _recognizes(path: Path) -> bool:
    # A GraphDef starts with field 1, a node, whose own first field is its name.
    start = first_bytes(path, 6)
    return (start[:1] == b"\n" and b"\n" in start[2:]) or (path.is_file() and path.suffix == ".pb")


def _read(path: Path) -> Detector:
    nodes = _nodes(path)
    constants = {name: node for name, node in nodes.items() if node.op == "Const"}
    origin = str(path)
    places = scopes(constants, origin)

    def read(name: str) -> np.ndarray | None:
        return _value(constants[name], origin) if name in constants else None

    shapes = _shapes(places, nodes, origin)
    epsilons = _epsilons(nodes, origin)
    spec = infer_spec(shapes, _stored_anchors(nodes, shapes.image_size, origin), origin)
    return detector_of(
        spec, places, read, lambda scope: epsilons.get(scope.rpartition("/")[2], _DEFAULT_EPSILON), origin
    )


def _nodes(path: Path) -> dict[str, Any]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelMistake(f"{path} is not a frozen graph, or is truncated ({error})") from error
    nodes = {node.name: node for node in graph.node}
    if variables := [node.name for node in graph.node if node.op.startswith(("Variable", "VarHandle"))]:
        raise ModelMistake(
            f"{path} is not frozen: it holds {len(variables)} variables without values, such as {variables[0]}; "
            "import the checkpoint folder instead"
        )
    return nodes


def _value(node: Any, origin: str) -> np.ndarray:
    import tensorflow as tf

    try:
        return np.asarray(tf.make_ndarray(node.attr["value"].tensor))
    except (TypeError, ValueError) as error:
        raise ModelMistake(f"{origin}: the constant {node.name} cannot be read ({error})") from error


def _shapes(places: dict[str, str], nodes: dict[str, Any], origin: str) -> Shapes:
    def width(layer: str) -> int:
        dimensions = nodes[f"{places[layer]}/weights"].attr["value"].tensor.tensor_shape.dim
        return int(dimensions[-1].size) if len(dimensions) == 4 else 0

    maps = sum(name.endswith("_boxes") for name in places)
    return Shapes(
        image_size=_image_size(nodes, origin),
        backbone=(width("Conv2d_0"), *(width(f"Conv2d_{block}_pointwise") for block in range(1, len(BACKBONE) + 1))),
        extras=tuple(width(f"Extra_{index}_3x3") for index in range(maps - len(SOURCE_BLOCKS))),
        source_blocks=SOURCE_BLOCKS,
        box_channels=tuple(width(f"BoxPredictor_{index}_boxes") for index in range(maps)),
        score_channels=tuple(width(f"BoxPredictor_{index}_scores") for index in range(maps)),
    )


def _image_size(nodes: dict[str, Any], origin: str) -> int:
    """Reads the side of the input from the preprocessor's resize, or from a placeholder of fixed size."""
    sizes = []
    for node in nodes.values():
        if node.op in _RESIZE_OPERATIONS and len(node.input) == 2 and node.input[1] in nodes:
            size = nodes[node.input[1]]
            sizes += [tuple(_value(size, origin).ravel().tolist())] if size.op == "Const" else []
        if node.op == "Placeholder" and len(dims := node.attr["shape"].shape.dim) == 4:
            sizes += [(dims[1].size, dims[2].size)]
    square = {size[0] for size in sizes if len(size) == 2 and size[0] == size[1] and size[0] > 0}
    if len(square) != 1:
        raise ModelMistake(
            f"{origin} does not say what square image it takes: found {sorted(set(sizes))} in its resize operations "
            "and placeholders"
        )
    return int(square.pop())


def _epsilons(nodes: dict[str, Any], origin: str) -> dict[str, float]:
    """Reads the batch norms' epsilons, by layer, from fused operations or from the sums under their square roots."""
    found: dict[str, float] = {}
    for node in nodes.values():
        layer, norm, rest = node.name.rpartition("/BatchNorm/")
        if norm and node.op.startswith("FusedBatchNorm"):
            found[layer.rpartition("/")[2]] = float(node.attr["epsilon"].f)
        if norm and node.op == "Const" and rest == "batchnorm/add/y":
            found[layer.rpartition("/")[2]] = float(_value(node, origin))
    return found


def _stored_anchors(nodes: dict[str, Any], image_size: int, origin: str) -> StoredAnchors | None:
    """Runs the graph's own anchor generator, if it has one."""
    import tensorflow as tf

    if _ANCHORS not in nodes or _IMAGE not in nodes:
        return None
    whole = tf.compat.v1.GraphDef(node=nodes.values())
    with tf.Graph().as_default() as graph:
        try:
            tf.import_graph_def(tf.compat.v1.graph_util.extract_sub_graph(whole, [_ANCHORS]), name="")
            stored = graph.get_tensor_by_name(f"{_ANCHORS}:0")
            image = np.zeros((1, image_size, image_size, 3), np.uint8)
            with tf.compat.v1.Session(graph=graph) as session:
                values = session.run(stored, {f"{_IMAGE}:0": image})
        except (tf.errors.OpError, ValueError, TypeError, KeyError) as error:
            raise ModelMistake(f"{origin} has an anchor generator that does not run: {error}") from error
    low, high = np.split(np.asarray(values, np.float64), 2, axis=-1)
    return StoredAnchors(np.concatenate([(low + high) / 2, high - low], axis=-1).astype(np.float32), 1e-5)


IMPORTER = Importer("a TF1 frozen graph (.pb)", _recognizes, _read)
