"""The wheel built from the repository, installed elsewhere, runs the demo."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that the wheel is installed to, first on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(
        ROOT, folder / "source", ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "quantsweep-*")
    )
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    wheel = next(folder.glob("quantsweep-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def _run(site: Path, cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-m", *arguments]
    return subprocess.run(command, check=True, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True).stdout


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demo(site, tmp_path):
    rows = json.loads(_run(site, tmp_path, "orchestrator.cli.main", "demo", "--json"))
    assert len(rows) >= 10
    assert all(row["status"] == "done" for row in rows)


def test_the_wheel_holds_what_it_needs(site):
    files = {path.relative_to(site).as_posix() for path in site.rglob("*")}
    assert {"orchestrator/examples/demo.yaml", "tasks/detector/demo.safetensors",
            "results/migrations/script.py.mako", "results/migrations/versions/0001_baseline.py",
            "results/migrations/versions/0002_quantization_space.py",
            "results/migrations/versions/0003_runtimes.py",
            "results/migrations/versions/0004_latency.py",
            "results/migrations/versions/0005_searches.py",
            "results/migrations/versions/0006_trainings.py"} <= files  # fmt: skip
    assert not [name for name in files if name.startswith(("tests/", "docs/"))]
