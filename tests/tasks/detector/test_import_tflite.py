"""Import of .tflite files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.detector.importers import import_detector
from tasks.detector.importers.tflite import read_tflite
from tasks.detector.importers.tflite_graph import read_graph
from tasks.detector.keras_model import build_keras
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake


@pytest.fixture(scope="session")
def small_tflite(small_detector: Detector) -> bytes:
    """The small detector as LiteRT's converter writes it, in float."""
    return _converted(small_detector, [])


def _converted(detector: Detector, optimizations: list[str]) -> bytes:
    import tensorflow as tf

    model = build_keras(detector)
    shape = tf.TensorSpec(model.input_shape, tf.float32, name="images")
    function = tf.function(lambda images: model(images)).get_concrete_function(shape)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    if "float16" in optimizations:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    if "int8" in optimizations:
        rng = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [rng.uniform(-1, 1, model.input_shape).astype(np.float32)] for _ in range(4)
        )
    return converter.convert()


@pytest.mark.reference_data
def test_architecture_is_read_from_the_real_file(real_tflite: Path) -> None:
    detector = import_detector(real_tflite)
    assert detector.spec == SSDMobileNetV1Spec(depth_multiplier=0.75)
    first = read_graph(real_tflite.read_bytes(), "real").operations[0]
    assert detector.tensors["Conv2d_0/weights"].shape == (3, 3, 3, 24)
    stored = read_graph(real_tflite.read_bytes(), "real").tensors[first.inputs[1]]
    steps = detector.tensors["Conv2d_0/weights"].transpose(3, 0, 1, 2) / stored.scales[0] + stored.zero_points[0]
    np.testing.assert_allclose(steps.ravel(), stored.content, atol=1e-3)


@pytest.mark.reference_data
def test_float_outputs_follow_the_quantized_files_own(real_tflite: Path, real_image: np.ndarray) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(real_tflite),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], real_image)
    interpreter.invoke()
    graph = read_graph(real_tflite.read_bytes(), "real")
    postprocess = next(op for op in graph.operations if op.name == "TFLite_Detection_PostProcess")
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}

    def real_values(number: int) -> np.ndarray:
        scale, zero = details[number]["quantization"]
        return (interpreter.get_tensor(number).astype(np.float32) - zero) * scale

    pixels = (real_image.astype(np.float32) - 127.5) / 127.5
    got = build_keras(import_detector(real_tflite))(pixels)
    boxes, scores = got["boxes"].numpy(), got["scores"].numpy()
    wanted_boxes, wanted_scores = (real_values(number) for number in postprocess.inputs[:2])
    # One step of the file's box output is 0.079, one of its scores 0.004; errors add up over 30 layers.
    assert np.abs(boxes - wanted_boxes).mean() < 2 * 0.079
    assert np.corrcoef(boxes.ravel(), wanted_boxes.ravel())[0, 1] > 0.98
    assert np.abs(scores - wanted_scores).mean() < 0.004
    confident = wanted_scores > 0.3
    assert confident.sum() > 3
    assert np.abs(scores - wanted_scores)[confident].mean() < 0.1
    assert np.corrcoef(scores.ravel(), wanted_scores.ravel())[0, 1] > 0.97


def test_float_file_gives_back_the_detector(small_detector: Detector, small_tflite: bytes) -> None:
    got = read_tflite(small_tflite, "small.tflite")
    assert got.spec == small_detector.spec
    for name, tensor in small_detector.tensors.items():
        np.testing.assert_array_equal(got.tensors[name], tensor, err_msg=name)


@pytest.mark.parametrize(
    ("optimization", "tolerance"), [("float16", 1e-3), pytest.param("int8", 1e-2, marks=pytest.mark.slow)]
)
def test_reduced_files_give_back_the_detector_within_their_precision(
    small_detector: Detector, optimization: str, tolerance: float
) -> None:
    got = read_tflite(_converted(small_detector, [optimization]), "small.tflite")
    assert got.spec == small_detector.spec
    for name, tensor in small_detector.tensors.items():
        np.testing.assert_allclose(
            got.tensors[name], tensor, atol=tolerance * max(float(np.abs(tensor).max()), 1), err_msg=name
        )


def _written(folder: Path, data: bytes, name: str = "model.tflite") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a .tflite file"),
        (b"not a model at all", "not a .tflite file"),
        (b"\x1c\x00\x00\x00TFL3", "truncated or damaged"),
        (b"\xff\xff\xff\xffTFL3" + bytes(100), "truncated or damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ModelMistake, match=message):
        import_detector(_written(tmp_path, content))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99])
def test_truncated_file_is_refused(small_tflite: bytes, tmp_path: Path, share: float) -> None:
    with pytest.raises(ModelMistake) as raised:
        import_detector(_written(tmp_path, small_tflite[: int(len(small_tflite) * share)]))
    assert "\n" not in str(raised.value)


@pytest.mark.reference_data
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_real_file_is_refused(real_tflite: Path, tmp_path: Path, share: float) -> None:
    data = real_tflite.read_bytes()
    with pytest.raises(ModelMistake, match="truncated or damaged"):
        import_detector(_written(tmp_path, data[: int(len(data) * share)]))


def test_other_networks_are_refused() -> None:
    import tensorflow as tf

    weights = tf.constant(np.ones((3, 3, 3, 8), np.float32))

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), tf.float32)])
    def classify(image: object) -> object:
        return tf.reduce_mean(tf.nn.relu6(tf.nn.conv2d(image, weights, 2, "SAME")), axis=(1, 2))

    data = tf.lite.TFLiteConverter.from_concrete_functions([classify.get_concrete_function()]).convert()
    with pytest.raises(ModelMistake, match="not an SSD MobileNetV1: it has 1 convolutions in a row"):
        read_tflite(data, "classifier.tflite")


def _outcome(data: bytes) -> None:
    try:
        read_tflite(data, "damaged.tflite")
    except ModelMistake as error:
        assert str(error)


@settings(max_examples=60, deadline=5000)
@given(st.integers(0, 10**9), st.integers(1, 40), st.sampled_from(["anywhere", "structure"]))
def test_damaged_bytes_never_do_worse_than_a_message(
    small_tflite: bytes, seed: int, count: int, where: str
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    damaged = np.frombuffer(small_tflite, np.uint8).copy()
    # The tables lie at both ends, around the buffers with the weights.
    tables = np.r_[8:2000, len(damaged) - 40000 : len(damaged)]
    places = rng.choice(tables if where == "structure" else len(damaged), count)
    damaged[places] = rng.integers(0, 256, count)
    _outcome(damaged.tobytes())
