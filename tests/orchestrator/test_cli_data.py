"""`quantsweep data check` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from orchestrator.cli.data import app

runner = CliRunner(env={"COLUMNS": "160", "TERM": "dumb"})


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, Path]:
    folder, path = tmp_path / "images", tmp_path / "set.json"
    folder.mkdir()
    images = [{"id": id_, "file_name": f"{id_}.png", "width": 40, "height": 30} for id_ in range(1, 10)]
    for id_ in range(1, 10):
        Image.new("RGB", (40, 30), (20 * id_, 0, 0)).save(folder / f"{id_}.png")
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cup"}]}))
    return folder, path


def test_a_clean_set_exits_with_0(dataset: tuple[Path, Path]) -> None:
    result = runner.invoke(app, ["check", *map(str, dataset)])
    assert result.exit_code == 0
    assert "No problems found." in result.stdout
    assert ["decoded", "9"] in [line.replace("│", " ").split() for line in result.stdout.splitlines()]


def test_problems_are_shown_by_kind_and_exit_with_2(dataset: tuple[Path, Path]) -> None:
    for number in range(1, 8):
        (dataset[0] / f"{number}.png").unlink()
    (dataset[0] / "9.png").write_text("[bold] no image")
    result = runner.invoke(app, ["check", *map(str, dataset)])
    assert result.exit_code == 2
    assert "missing_image" in result.stdout
    assert "and 2 more (--json shows all)" in result.stdout
    assert "image 9 (9.png) is not an image of a known format" in result.stdout
    assert "No problems" not in result.stdout


def test_brackets_in_names_are_printed_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "[red]a[b].png").write_text("no image")
    result = runner.invoke(app, ["check", str(tmp_path)])
    assert "image 1 ([red]a[b].png) is not an image" in result.stdout


def test_json_is_a_list_of_flat_objects(dataset: tuple[Path, Path]) -> None:
    (dataset[0] / "3.png").unlink()
    Image.new("L", (40, 30)).save(dataset[0] / "4.png")
    result = runner.invoke(app, ["check", *map(str, dataset), "--json"])
    assert result.exit_code == 2
    rows = json.loads(result.stdout)
    assert [row["record"] for row in rows] == ["summary", "problem", "notice"]
    assert {key: rows[0][key] for key in ("images", "decoded", "annotations", "problems", "notices")} == {
        "images": 9,
        "decoded": 8,
        "annotations": 1,
        "problems": 1,
        "notices": 1,
    }
    assert (rows[1]["kind"], rows[1]["image_id"], rows[1]["file"]) == ("missing_image", 3, "3.png")
    assert (rows[2]["kind"], rows[2]["image_id"]) == ("greyscale", 4)
    assert not any(isinstance(value, dict | list) for row in rows for value in row.values())


def test_no_decode_says_that_it_has_not_looked(dataset: tuple[Path, Path]) -> None:
    (dataset[0] / "9.png").write_text("no image")
    result = runner.invoke(app, ["check", *map(str, dataset), "--no-decode"])
    assert result.exit_code == 0
    assert "images were not decoded" in result.stdout


@pytest.mark.parametrize("annotations", ["images", "absent.json"])
def test_wrong_places_are_a_message_not_a_traceback(dataset: tuple[Path, Path], annotations: str) -> None:
    result = runner.invoke(app, ["check", str(dataset[0]), str(dataset[1].parent / annotations)])
    assert result.exit_code == 2
    assert "annotations_file" in result.stdout
    assert isinstance(result.exception, SystemExit)


def test_the_command_line_loads_nothing_heavy_before_it_is_used() -> None:
    heavy = "{'numpy', 'PIL', 'rich.progress', 'tensorflow', 'torch', 'ray'}"
    code = f"import sys, orchestrator.cli.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
