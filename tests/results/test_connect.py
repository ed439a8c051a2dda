"""Opening databases: what is refused, and how an older schema is brought up."""

import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from results import connect, queries
from results.connect import check_database, name_of, open_database, open_unchecked, revision, upgrade_database
from results.schema import HEAD
from results.store import Store
from tasks.errors import DatabaseMistake
from tests.results import samples


def refusal(url: str | Path, **options: bool) -> str:
    with pytest.raises(DatabaseMistake) as caught:
        open_database(str(url), **options)
    return str(caught.value)


def test_a_plain_path_and_a_url_name_the_same_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples.register(Store(open_database("./a name with spaces & 100 %.db")))
    engine = open_database(f"sqlite:///{tmp_path}/a name with spaces & 100 %.db", read_only=True)
    assert queries.sql(engine, "SELECT name FROM detectors") == [{"name": "sample"}]
    assert name_of(engine) == str(tmp_path / "a name with spaces & 100 %.db")
    assert [path.name for path in tmp_path.glob("*.db")] == ["a name with spaces & 100 %.db"]


def test_sqlite_runs_with_wal_and_foreign_keys(tmp_path: Path) -> None:
    with open_database(str(tmp_path / "a.db")).connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_transaction_takes_the_write_lock_at_its_start(tmp_path: Path) -> None:
    engine = open_database(str(tmp_path / "a.db"))
    other = sqlite3.connect(tmp_path / "a.db", timeout=0, isolation_level=None)
    with engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    with engine.execution_options(reads=True).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM sweeps")).scalar() == 0
    other.close()


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    assert revision(open_database(str(tmp_path / "empty.db"))) == HEAD


@pytest.mark.parametrize("options", [{"create": False}, {"read_only": True}])
def test_a_missing_database_is_refused_and_not_made(tmp_path: Path, options: dict[str, bool]) -> None:
    assert "there is no database" in refusal(tmp_path / "missing.db", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_our_tables_holds_no_results(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE t (a)").connection.close()
    assert "holds no results of quantsweep" in refusal(tmp_path / "other.db", read_only=True)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"the folder {tmp_path / 'missing'} does not exist" in refusal(tmp_path / "missing" / "a.db")


def test_a_folder_that_takes_no_files_is_refused() -> None:
    assert "/proc/results.db" in refusal("/proc/results.db")


def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 not a database")
    for read_only in (False, True):
        assert "is not an SQLite database" in refusal(path, read_only=read_only)
    assert path.read_bytes() == b"\xff\xd8\xff\xe0 not a database"


@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_database_is_refused(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "damaged.db"
    path.write_bytes(b"SQLite format 3\x00" + b"damage" * 1000)
    assert "is not an SQLite database, or it is damaged" in refusal(path, read_only=read_only)


def test_a_database_that_only_reads_is_not_upgraded(tmp_path: Path) -> None:
    open_database(str(tmp_path / "a.db")).dispose()
    reader = open_database(str(tmp_path / "a.db"), read_only=True)
    with sqlite3.connect(tmp_path / "a.db") as writer:
        writer.execute("DELETE FROM quantsweep_alembic_version")
    with pytest.raises(DatabaseMistake):
        upgrade_database(reader)


@pytest.mark.parametrize("url", ["", ":memory:", "sqlite://", "sqlite:///:memory:", "sqlite://relative.db"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    assert "SQLite" in refusal(url)


@pytest.mark.parametrize("url", ["mysql://host/name", "postgresql+asyncpg://host/name", "http://host"])
def test_other_databases_are_refused_with_the_choices(url: str) -> None:
    assert "choices: a path, sqlite:///PATH, postgresql://USER@HOST/NAME" in refusal(url)


def test_postgresql_that_does_not_answer_is_refused_without_showing_the_password() -> None:
    pytest.importorskip("psycopg")
    message = refusal("postgresql://me:secret@127.0.0.1:1/results")
    assert "127.0.0.1" in message
    assert "cannot be used" in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_url_that_is_no_url_is_refused() -> None:
    assert "cannot be read" in refusal("postgresql://me@host:port/results")


def test_a_missing_driver_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'quantsweep[postgresql]'" in refusal("postgresql://me@127.0.0.1:1/results")


NEXT_HEAD = f"{int(HEAD) + 1:04}"
NEXT = '''"""A later schema."""

import sqlalchemy as sa
from alembic import op

revision = "{next_head}"
down_revision = "{head}"


def upgrade() -> None:
    """Adds a column."""
    op.add_column("sweeps", sa.Column("note", sa.Text(), nullable=True))
    {more}
'''


def add_migration(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    """Pretends that a later quantsweep has one more migration."""
    shutil.copytree(connect.MIGRATIONS, folder)
    text = NEXT.format(more=more, head=HEAD, next_head=NEXT_HEAD)
    (folder / "versions" / f"{NEXT_HEAD}_note.py").write_text(text)
    monkeypatch.setattr(connect, "MIGRATIONS", folder)
    monkeypatch.setattr(connect, "HEAD", NEXT_HEAD)


def test_an_older_schema_is_upgraded_on_request_only_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "a.db")
    samples.fill(Store(open_database(url)))
    add_migration(tmp_path / "migrations", monkeypatch)
    for read_only in (False, True):
        assert f"run: quantsweep db upgrade --db {url}" in refusal(url, read_only=read_only)
    assert upgrade_database(open_unchecked(url)) == (HEAD, NEXT_HEAD)
    engine = open_database(url, create=False)
    assert queries.sql(engine, "SELECT name, note FROM sweeps") == [{"name": "sample", "note": None}]
    assert len(queries.leaderboard(engine)) == len(samples.VARIANTS)


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "a.db")
    engine = open_database(url)
    add_migration(tmp_path / "migrations", monkeypatch, more='op.execute("no sql")')
    with pytest.raises(DatabaseMistake):
        upgrade_database(engine)
    assert revision(engine) == HEAD
    assert "note" not in {column["name"] for column in inspect(engine).get_columns("sweeps")}


def test_rows_that_refer_to_nothing_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    engine = open_database(str(path))
    samples.fill(Store(engine))
    with sqlite3.connect(path) as careless:
        careless.execute("DELETE FROM artifacts")
    with pytest.raises(DatabaseMistake, match="accuracies refers to rows that do not exist"):
        check_database(engine)


def test_making_a_database_takes_no_time_that_one_would_notice(tmp_path: Path) -> None:
    open_database(str(tmp_path / "first.db"))
    start = time.process_time()
    open_database(str(tmp_path / "second.db"))
    assert time.process_time() - start < 0.3
