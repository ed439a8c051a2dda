"""Import of TF1 checkpoints and frozen graphs: the detector computes what TensorFlow computes with the TF1 graph."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks.detector.anchors import anchors
from tasks.detector.importers import import_detector
from tasks.detector.importers.pipeline import spec_from_pipeline
from tasks.detector.importers.text_proto import parse
from tasks.detector.keras_model import build_keras
from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake
from tests.tasks.detector.tf1_graph import TF1Detector, make

ROUNDED_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)


@pytest.fixture(scope="session")
def tf1_detector(reference_data: Path, real_image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> TF1Detector:
    return make(
        reference_data / "models" / "ssd_mobilenet_v1_coco_2018_01_28", tmp_path_factory.mktemp("tf1"), real_image
    )


@pytest.fixture(scope="session")
def from_checkpoint(tf1_detector: TF1Detector) -> Detector:
    return import_detector(tf1_detector.checkpoint)


@pytest.fixture(scope="session")
def from_frozen_graph(tf1_detector: TF1Detector) -> Detector:
    return import_detector(tf1_detector.frozen_graph)


@pytest.mark.reference_data
@pytest.mark.parametrize("source", ["from_checkpoint", "from_frozen_graph"])
def test_raw_outputs_equal_the_tf1_graphs_own(
    source: str, tf1_detector: TF1Detector, request: pytest.FixtureRequest
) -> None:
    detector = request.getfixturevalue(source)
    got = build_keras(detector)(tf1_detector.image)
    assert tf1_detector.boxes.std() > 0.1
    assert tf1_detector.scores.std() > 0.1
    np.testing.assert_allclose(got["boxes"], tf1_detector.boxes, atol=1e-4, rtol=0)
    np.testing.assert_allclose(got["scores"], tf1_detector.scores, atol=1e-4, rtol=0)


@pytest.mark.reference_data
def test_anchors_equal_the_tf1_graphs_own(from_checkpoint: Detector, tf1_detector: TF1Detector) -> None:
    centers, sides = np.split(anchors(from_checkpoint.spec), 2, axis=1)
    corners = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
    np.testing.assert_allclose(corners, tf1_detector.anchors, atol=1e-6)


@pytest.mark.reference_data
def test_both_formats_give_one_detector(from_checkpoint: Detector, from_frozen_graph: Detector) -> None:
    assert from_checkpoint.spec == SSDMobileNetV1Spec(anchors=AnchorSpec(aspect_ratios=ROUNDED_RATIOS))
    assert from_frozen_graph.spec == from_checkpoint.spec
    for name, tensor in from_checkpoint.tensors.items():
        np.testing.assert_allclose(from_frozen_graph.tensors[name], tensor, rtol=1e-6, err_msg=name)


def _copied(source: Path, folder: Path) -> Path:
    # The folder of the fixture is shared by all tests; these damage their own.
    return Path(shutil.copytree(source, folder / "damaged"))


@pytest.mark.reference_data
def test_checkpoint_without_weights_is_refused(reference_data: Path) -> None:
    with pytest.raises(ModelMistake, match=r"has no weights: there is no model\.ckpt\.data-00000-of-00001"):
        import_detector(reference_data / "models" / "ssd_mobilenet_v1_coco_2018_01_28")


@pytest.mark.reference_data
@pytest.mark.parametrize("damaged", ["model.ckpt.index", "model.ckpt.data-00000-of-00001"])
def test_truncated_checkpoint_is_refused(tf1_detector: TF1Detector, tmp_path: Path, damaged: str) -> None:
    folder = _copied(tf1_detector.checkpoint, tmp_path)
    content = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelMistake, match="damaged or incomplete checkpoint"):
        import_detector(folder)


@pytest.mark.reference_data
def test_configuration_of_another_width_is_refused(tf1_detector: TF1Detector, tmp_path: Path) -> None:
    folder = _copied(tf1_detector.checkpoint, tmp_path)
    config = folder / "pipeline.config"
    config.write_text(config.read_text().replace("depth_multiplier: 1.0", "depth_multiplier: 0.5"))
    with pytest.raises(ModelMistake, match=r"has the shape \(3, 3, 3, 32\); the architecture wants \(3, 3, 3, 16\)"):
        import_detector(folder)


@pytest.mark.reference_data
def test_truncated_frozen_graph_is_refused(tf1_detector: TF1Detector, tmp_path: Path) -> None:
    path = tmp_path / "truncated.pb"
    content = tf1_detector.frozen_graph.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelMistake, match="not a frozen graph, or is truncated"):
        import_detector(path)


def test_graph_with_variables_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.get_variable("FeatureExtractor/x", (2,), use_resource=False)
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(ModelMistake, match="is not frozen: it holds 1 variables without values"):
        import_detector(path)


def test_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        tf.constant(np.ones((3, 3, 3, 8)), name="conv1/weights")
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(ModelMistake, match="not an SSD MobileNetV1: it lacks"):
        import_detector(path)


CONFIG = """
model { ssd {
  num_classes: 20  # VOC
  image_resizer { fixed_shape_resizer { height: 256 width: 256 } } box_coder { faster_rcnn_box_coder { } }
  feature_extractor {
    type: 'ssd_mobilenet_v1', depth_multiplier: 0.5
    conv_hyperparams: <activation: RELU_6>
  }
  anchor_generator { ssd_anchor_generator { min_scale: 0.15000000596 aspect_ratios: [1, 2.0, .5] } }
  post_processing { score_converter: SIGMOID }
} }
"""


def test_settings_come_from_the_configuration() -> None:
    assert spec_from_pipeline(parse(CONFIG, "c"), "c") == SSDMobileNetV1Spec(
        depth_multiplier=0.5,
        image_size=256,
        class_ids=tuple(range(21)),
        anchors=AnchorSpec(min_scale=0.15, aspect_ratios=(1.0, 2.0, 0.5)),
    )


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("'ssd_mobilenet_v1'", "'ssd_mobilenet_v2'", "type is ssd_mobilenet_v2, not ssd_mobilenet_v1"),
        ("height: 256", "height: 128", r"height is 128\.0, not 256\.0"),
        ("RELU_6", "RELU", "activation is RELU, not RELU_6"),
        ("SIGMOID", "SOFTMAX", "score_converter is SOFTMAX, not SIGMOID"),
        ("num_classes: 20", "num_classes: 0", "at least one category"),
        ("num_classes: 20", "num_classes: many", "num_classes is 'many'; it must be a number"),
        ("depth_multiplier: 0.5", "depth_multiplier: -1", "must be above 0"),
        ("'ssd_mobilenet_v1'", "'ssd_mobilenet_v1", "line 6: a string is not closed"),
        ("} }\n", "}\n", "ends within a message"),
        ("post_processing {", "post_processing }", "line 10: '}' is not expected here"),
    ],
)
def test_unusable_configurations_are_refused(before: str, after: str, message: str) -> None:
    start, found, rest = CONFIG.rpartition(before)
    assert found
    with pytest.raises(ModelMistake, match=message):
        spec_from_pipeline(parse(start + after + rest, "pipeline.config"), "pipeline.config")
