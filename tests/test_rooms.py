"""The rooms import only what the architecture allows, and heavy libraries only where they are used."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("orchestrator", "tasks", "cluster", "results")
TYPES_AND_ERRORS = {"tasks.errors", "tasks.types", "tasks.identity"}
HEAVY = {
    "tensorflow",
    "tf_keras",
    "torch",
    "torchao",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "nncf",
    "ray",
    "optuna",
    "plotly",
    "cv2",
    "hotcoco",
    "pycocotools",
    "litert_quantizer",
    "ai_edge_litert",
}

HEAVY_MODULES = {
    "orchestrator.search.optuna_study",
    "orchestrator.search.unseen",
    "tasks.detector.scratch_learner",
    "tasks.detector.torch_model",
    "tasks.quantize.qat_keras",
    "tasks.quantize.qat_keras_quantizers",
    "tasks.quantize.torch_annotation",
    "tasks.quantize.torch_lowering",
    "tasks.quantize.torch_simulation",
    "tasks.training.keras_graph",
    "tasks.training.keras_learner",
}
"""Modules that define subclasses of a framework's, and so import it; who needs one imports it inside a function."""


def _imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return found | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def _files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ["tasks", "cluster", "results"])
def test_no_room_but_the_orchestrator_imports_another_room_than_tasks(room):
    for path in _files(room):
        others = {name for name in _imports(path) if name.split(".")[0] in set(ROOMS) - {room, "tasks"}}
        assert not others, path


@pytest.mark.parametrize("room", ["cluster", "results"])
def test_cluster_and_results_know_only_the_types_and_errors_of_tasks(room):
    for path in _files(room):
        known = {name for name in _imports(path) if name.split(".")[0] == "tasks"}
        assert known <= TYPES_AND_ERRORS, path


@pytest.mark.parametrize("room", ROOMS)
def test_heavy_libraries_are_imported_only_inside_functions(room):
    for path in _files(room):
        if ".".join(path.relative_to(ROOT).with_suffix("").parts) in HEAVY_MODULES:
            continue
        found = _imports(path, top_level_only=True)
        heavy = {name for name in found if name.split(".")[0] in HEAVY or name in HEAVY_MODULES}
        assert not heavy, path


def test_no_file_has_a_name_that_says_nothing():
    empty = {"utils.py", "util.py", "helpers.py", "helper.py", "manager.py", "common.py", "misc.py"}
    assert not [path for room in ROOMS for path in _files(room) if path.name in empty]
