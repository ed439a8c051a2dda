"""Fixtures shared by all rooms' tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.connect import RayExecutor
from cluster.executor import Executor
from cluster.inprocess import InProcessExecutor
from tests.once import begin


def pytest_configure(config: pytest.Config) -> None:
    begin(config)


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder with the real detector and real COCO images."""
    folder = os.environ.get("QUANTSWEEP_REFERENCE_DATA")
    if not folder:
        pytest.skip("QUANTSWEEP_REFERENCE_DATA does not name the folder with the real detector and COCO images")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def ray_executor() -> Iterator[RayExecutor]:
    """One real Ray for the whole test session."""
    executor = RayExecutor("local")
    yield executor
    executor.close()


@pytest.fixture(params=["in-process", "ray"])
def executor(request: pytest.FixtureRequest) -> Executor:
    """Each implementation of the executor interface."""
    if request.param == "ray":
        ray: Executor = request.getfixturevalue("ray_executor")
        return ray
    return InProcessExecutor()
