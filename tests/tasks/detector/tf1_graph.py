"""A TF1 detector with the graph of the zoo's SSD MobileNetV1 and random weights, run by TensorFlow itself."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PREPROCESSED = "Preprocessor/sub:0"
OUTPUTS = {"boxes": "Squeeze:0", "logits": "concat_1:0", "anchors": "MultipleGridAnchorGenerator/Concatenate/concat:0"}


@dataclass(frozen=True)
class TF1Detector:
    """Files of one detector, and what TensorFlow computes with its own graph."""

    checkpoint: Path
    """Folder with pipeline.config and model.ckpt.*"""

    frozen_graph: Path
    """The .pb file."""

    image: np.ndarray
    """(1, 300, 300, 3) float32 in [-1, 1], as the graph's preprocessor gives it."""

    boxes: np.ndarray
    """(1, A, 4) raw box encodings."""

    scores: np.ndarray
    """(1, A, 91) after the sigmoid."""

    anchors: np.ndarray
    """(A, 4) [ymin, xmin, ymax, xmax] of the graph's own anchor generator."""


def _random_value(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    if name.endswith("moving_variance"):
        value = rng.uniform(0.2, 2.0, shape)
    elif name.endswith("gamma"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(("beta", "moving_mean", "biases")):
        value = rng.normal(0.2, 0.3, shape)
    elif name.endswith("depthwise_weights"):
        value = rng.normal(0, np.sqrt(2 / 9), shape)
    elif name.endswith("weights"):
        value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    else:
        value = np.zeros(shape)
    return value.astype(np.float32)


def make(reference_model: Path, folder: Path, image: np.ndarray) -> TF1Detector:
    """Builds the detector from the real graph.

    Args:
        reference_model: Folder with the real model.ckpt.meta and pipeline.config.
        folder: Where to write.
        image: (1, 300, 300, 3) uint8.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    checkpoint, frozen_graph = folder / "checkpoint", folder / "frozen_inference_graph.pb"
    checkpoint.mkdir()
    shutil.copy(reference_model / "pipeline.config", checkpoint)
    rng = np.random.default_rng(2018)
    threads = v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.Graph().as_default() as graph, v1.Session(config=threads) as session:
        saver = v1.train.import_meta_graph(str(reference_model / "model.ckpt.meta"), clear_devices=True)
        # The exported graph lists no variables; each has an operation that assigns its first value.
        variables = [operation for operation in graph.get_operations() if operation.type == "VariableV2"]
        assignments = [graph.get_operation_by_name(f"{variable.name}/Assign") for variable in variables]
        values = [_random_value(each.name, each.outputs[0].shape.as_list(), rng) for each in variables]
        initial = [assignment.inputs[1] for assignment in assignments]
        session.run(assignments, dict(zip(initial, values, strict=True)))
        saver.save(session, str(checkpoint / "model.ckpt"), write_meta_graph=False)
        names = [name.partition(":")[0] for name in OUTPUTS.values()] + ["detection_boxes", "detection_scores"]
        frozen = v1.graph_util.convert_variables_to_constants(session, session.graph_def, names)
        frozen_graph.write_bytes(frozen.SerializeToString())
        preprocessed, got = session.run([PREPROCESSED, OUTPUTS], {"image_tensor:0": image})
    logits = got["logits"].astype(np.float64)
    scores = 1 / (1 + np.exp(-logits))
    return TF1Detector(checkpoint, frozen_graph, preprocessed, got["boxes"], scores, got["anchors"])
