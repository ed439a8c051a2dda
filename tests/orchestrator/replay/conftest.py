from pathlib import Path

import pytest

from orchestrator.replay.table import Table, load_table
from results.connect import open_database
from tests.orchestrator.replay.recorded import record


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> Path:
    """The database of a finished sweep."""
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def table(database) -> Table:
    """The finished sweep as a table."""
    return load_table(open_database(str(database), read_only=True))
