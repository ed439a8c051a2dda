"""The choice of the importer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.detector.importers import import_detector
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake


def test_own_file_imports_as_itself(small_detector: Detector, tmp_path: Path) -> None:
    # The name says nothing: the content is what counts.
    path = tmp_path / "model.bin"
    path.write_bytes(small_detector.to_bytes())
    assert import_detector(path).sha256 == small_detector.sha256


def test_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMistake, match=r"there is no file or folder .*absent\.tflite"):
        import_detector(tmp_path / "absent.tflite")


def test_unknown_format_names_the_choices(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x07whatever")
    with pytest.raises(ModelMistake, match=r"choices: .*\.safetensors.*\.tflite.*TF1 checkpoint.*\.pb"):
        import_detector(path)


def test_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelMistake, match=r"has no pipeline\.config"):
        import_detector(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pb"])
def test_damaged_files_are_refused_by_their_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"damaged beyond recognition")
    with pytest.raises(ModelMistake, match=name):
        import_detector(path)


def test_denormal_weights_are_imported_as_zeros(small_detector: Detector, tmp_path: Path) -> None:
    name = next(name for name in small_detector.tensors if name.endswith("/weights"))
    tensors = {**small_detector.tensors, name: small_detector.tensors[name].copy()}
    tensors[name].flat[:3] = np.array([1, 2**-127, -(2**-149)], np.float32)
    path = tmp_path / "model.safetensors"
    path.write_bytes(replace(small_detector, tensors=tensors).to_bytes())
    imported = import_detector(path)
    assert imported.tensors[name].flat[:3].tolist() == [1, 0, 0]
    assert all(np.array_equal(imported.tensors[other], tensors[other]) for other in tensors if other != name)
