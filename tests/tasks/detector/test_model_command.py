"""`quantsweep model import` and `quantsweep model show`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.model import app
from tasks.detector.loss import LossSettings
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import UserMistake


@pytest.fixture()
def source(small_detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "source.safetensors"
    path.write_bytes(small_detector.to_bytes())
    return path


def _invoke(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def _mistake(*words: object) -> str:
    with pytest.raises(UserMistake) as raised:
        _invoke(*words)
    return str(raised.value)


def test_import_writes_the_detector_and_says_what_it_is(
    source: Path, small_detector: Detector, tmp_path: Path
) -> None:  # fmt: skip
    out = tmp_path / "out.safetensors"
    output = _invoke("import", source, "--out", out)
    assert Detector.load(out).sha256 == small_detector.sha256
    assert small_detector.sha256 in output
    assert f"{sum(layer.parameters for layer in layers(small_detector.spec)):,}" in output
    assert f"{sum(layer.macs for layer in layers(small_detector.spec)):,}" in output
    assert "96 x 96" in output
    assert "4 and the background" in output
    assert f"next: quantsweep model show {out}" in output


def test_labels_name_the_score_columns(source: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels.txt", tmp_path / "out.safetensors"
    labels.write_text("???\nhouse\ntree\n???\nred car\nnever used\n")
    output = _invoke("import", source, "--out", out, "--labels", labels)
    assert Detector.load(out).spec.class_names == ("???", "house", "tree", "???", "red car")
    assert "not used: never used" in output


def test_too_few_labels_are_refused(source: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels.txt", tmp_path / "out.safetensors"
    labels.write_text("house\ntree\ncar\nboat\n")
    assert "4 lines; the detector has 5 score columns" in _mistake("import", source, "--out", out, "--labels", labels)
    assert "cannot be read" in _mistake("import", source, "--out", out, "--labels", tmp_path / "absent.txt")
    assert not out.exists()


def test_a_file_is_replaced_only_by_force(source: Path, small_detector: Detector, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_text("precious")
    assert "--force" in _mistake("import", source, "--out", out)
    assert out.read_text() == "precious"
    _invoke("import", source, "--out", out, "--force")
    assert Detector.load(out).sha256 == small_detector.sha256


def test_a_failed_import_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "source.tflite"
    source.write_bytes(b"nothing")
    assert "not a .tflite file" in _mistake("import", source, "--out", tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == [source]


def test_unwritable_place_is_named(source: Path, tmp_path: Path) -> None:
    assert "cannot be written" in _mistake("import", source, "--out", tmp_path / "absent" / "out.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "cannot be written" in _mistake("import", source, "--out", folder, "--force")
    assert sorted(tmp_path.iterdir()) == [folder, source]


def test_show_as_json_is_the_layer_table(source: Path, small_detector: Detector) -> None:
    rows = json.loads(_invoke("show", source, "--json"))
    assert [row["name"] for row in rows] == [layer.name for layer in layers(small_detector.spec)]
    assert rows[0] == {
        "name": "Conv2d_0",
        "kind": "conv",
        "source": "image",
        "kernel": 3,
        "stride": 2,
        "input_shape": "96x96x3",
        "output_shape": "48x48x16",
        "parameters": 3 * 3 * 3 * 16 + 16,
        "macs": 48 * 48 * 3 * 3 * 3 * 16,
    }
    assert sum(row["parameters"] for row in rows) == sum(tensor.size for tensor in small_detector.tensors.values())


def test_show_prints_layers_and_totals(source: Path, small_detector: Detector) -> None:
    output = _invoke("show", source)
    assert all(layer.name in output for layer in layers(small_detector.spec))
    assert f"{sum(layer.macs for layer in layers(small_detector.spec)):,}" in output


def test_show_refuses_what_is_no_detector(tmp_path: Path) -> None:
    assert "no detector file" in _mistake("show", tmp_path / "absent.safetensors")


def test_help_loads_no_framework() -> None:
    code = (
        "import sys, orchestrator.cli.model as m; "
        "print([n for n in ('numpy', 'tensorflow', 'ray', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


CONFIG = """
model { ssd {
  num_classes: 4
  box_coder { faster_rcnn_box_coder { } }
  similarity_calculator { iou_similarity { } }
  image_resizer { fixed_shape_resizer { height: 96 width: 96 } }
  matcher { argmax_matcher { force_match_for_each_row: true } }
  feature_extractor { type: 'ssd_mobilenet_v1' depth_multiplier: DEPTH conv_hyperparams { activation: RELU_6 } }
  post_processing { score_converter: SIGMOID }
  loss {
    classification_loss { weighted_sigmoid_focal { alpha: 0.75 gamma: 2.0 } }
    localization_loss { weighted_smooth_l1 { } }
  }
  normalize_loc_loss_by_codesize: true
} }
"""


def _config(folder: Path, detector: Detector, name: str = "pipeline.config") -> Path:
    path = folder / name
    path.write_text(CONFIG.replace("DEPTH", str(detector.spec.depth_multiplier)))
    return path


@pytest.mark.parametrize("beside", [True, False])
def test_the_configuration_says_what_the_detector_was_trained_with(
    beside: bool, source: Path, small_detector: Detector, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    config = _config(tmp_path, small_detector, "pipeline.config" if beside else "other.config")
    output = _invoke("import", source, "--out", out, *(() if beside else ("--config", config)))
    assert "trained with      focal loss (alpha 0.75, gamma 2)" in output
    assert Detector.load(out).loss == LossSettings("focal", focal_alpha=0.75)


def test_a_configuration_that_happens_to_lie_there_and_is_of_no_use_is_noted(
    source: Path, small_detector: Detector, tmp_path: Path
) -> None:
    out, config = tmp_path / "out.safetensors", _config(tmp_path, small_detector)
    config.write_text(config.read_text().replace("num_classes: 4", "num_classes: 7"))
    output = _invoke("import", source, "--out", out)
    assert "note:" in output and "its number of score columns is 8, not 5" in output
    assert "trained with      unknown" in output
    assert Detector.load(out).loss is None


def test_a_configuration_that_was_named_and_is_of_no_use_is_refused(
    source: Path, small_detector: Detector, tmp_path: Path
) -> None:
    out, config = tmp_path / "out.safetensors", _config(tmp_path, small_detector, "other.config")
    config.write_text(config.read_text().replace("weighted_sigmoid_focal", "weighted_softmax"))
    assert "classification_loss is weighted_softmax" in _mistake("import", source, "--out", out, "--config", config)
    assert "cannot be read" in _mistake("import", source, "--out", out, "--config", tmp_path / "absent.config")
    assert not out.exists()
