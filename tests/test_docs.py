"""What the documents say exists."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import typer

from orchestrator.cli.main import app
from tasks.quantize.schemes import SCHEMES, WeightAlgorithm
from tasks.quantize.transforms.base import transforms

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md"]


def _commands() -> set[str]:
    root = typer.main.get_command(app)
    found = set()
    for name, command in root.commands.items():
        found |= {f"{name} {inner}" for inner in command.commands} if hasattr(command, "commands") else {name}
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_documents_exists(document):
    commands = _commands()
    for line in re.findall(r"^    quantsweep (.+)$", document.read_text(), flags=re.MULTILINE):
        words = line.split()
        assert words[0] in commands or " ".join(words[:2]) in commands, line


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    missing = {command for command in _commands() if not all(word in readme for word in command.split())}
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_in_the_documents_exists(document):
    named = re.findall(r"`((?:orchestrator|tasks|cluster|results|tests|docs)/[\w./-]+)", document.read_text())
    links = re.findall(r"\]\(([\w./-]+)\)", document.read_text())
    assert not [
        name for name in named + links if not ((ROOT / name.rstrip(".:")).exists() or (document.parent / name).exists())
    ]


def test_every_scheme_axis_and_choice_is_explained():
    text = (ROOT / "docs" / "quantization.md").read_text()
    axes = {axis.name for scheme in SCHEMES.values() for axis in fields(scheme)}
    estimators = {
        "min_max", "moving_average", "mean_min_max", "percentile_99_99", "mse", "histogram", "entropy", "fixed",
    }  # fmt: skip
    algorithms = set(get_args(WeightAlgorithm))
    for name in {*SCHEMES, *axes, *estimators, *algorithms, *(transform.example for transform in transforms())}:
        assert re.search(rf"`{name}\b", text), name
