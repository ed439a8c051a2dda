"""Opening a database: SQLite for one machine, PostgreSQL for clusters; always at the newest schema version."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from results.schema import HEAD, VERSION_TABLE, tables
from results.views import views
from tasks.errors import DatabaseMistake, UserMistake

MIGRATIONS = Path(__file__).parent / "migrations"
"""The Alembic environment."""

_SQLITE_MAGIC = b"SQLite format 3\x00"
_BUSY_SECONDS = 30
_CONNECT_SECONDS = 10
_UPGRADE_LOCK = 7_818_236_511  # any number that no one else uses for PostgreSQL's advisory locks


def open_database(url: str, create: bool = True, read_only: bool = False) -> Engine:
    """Opens a database whose schema is the newest, creating the schema if there is none.

    Args:
        url: `sqlite:///PATH`, a plain path, or `postgresql://USER@HOST/NAME`.
        create: Whether a missing file or an empty database gets the schema; otherwise it is refused.
        read_only: Whether the connections may only read; implies not `create`.

    Returns:
        An engine. Transactions that it begins on SQLite take the write lock at once, unless `read_only`.

    Raises:
        DatabaseMistake: If the database is missing, unreachable, unwritable, not ours, or of another schema version.
    """
    create = create and not read_only
    engine = _engine(url, create, read_only)
    try:
        found = revision(engine)
        if found is None and create:
            upgrade_database(engine)
        else:
            _check_revision(engine, found)
        if not read_only:
            _check_writable(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def database_for_results(url: str) -> Iterator[Engine]:
    """Opens a database to write to. If the work ends in a user's mistake, a file made for it is taken away again.

    Args:
        url: As in `open_database`.

    Yields:
        The engine.

    Raises:
        DatabaseMistake: As `open_database`.
    """
    path = None if url.startswith("postgresql") else _sqlite_path(url)
    is_new = path is not None and not path.exists()
    try:
        engine = open_database(url)
        try:
            yield engine
        finally:
            engine.dispose()
    except UserMistake:
        if path is not None and is_new:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        raise


def open_unchecked(url: str, create: bool = False) -> Engine:
    """Opens a database for reading and writing, whatever the version of its schema.

    Args:
        url: As in `open_database`.
        create: Whether a missing file is made.

    Returns:
        An engine.

    Raises:
        DatabaseMistake: If there is no such database, or it cannot be reached.
    """
    return _engine(url, create, read_only=False)


def check_database(engine: Engine) -> dict[str, Any]:
    """Checks a database in depth: every table, column and view is there, and SQLite's pages and references are sound.

    Args:
        engine: A database of the newest schema.

    Returns:
        `database`, `schema` (revision) and `sweeps` (their number).

    Raises:
        DatabaseMistake: If something is missing or damaged; the message names all of it.
    """
    try:
        with engine.execution_options(reads=True).connect() as connection:
            problems = [*_missing(connection), *_damage(connection)]
            if problems:
                raise DatabaseMistake(f"the database {name_of(engine)} is not whole: {'; '.join(problems)}")
            number = connection.execute(select(func.count()).select_from(tables.tables["sweeps"])).scalar_one()
            return {"database": name_of(engine), "schema": _revision(connection), "sweeps": number}
    except DBAPIError as error:
        raise mistake_of(engine, error) from error


def revision(engine: Engine) -> str | None:
    """Reads the revision of the schema.

    Args:
        engine: A database.

    Returns:
        The revision, or None if the database has no schema of quantsweep.

    Raises:
        DatabaseMistake: If the database cannot be reached or read.
    """
    try:
        with engine.execution_options(reads=True).connect() as connection:
            return _revision(connection)
    except DBAPIError as error:
        raise mistake_of(engine, error) from error


def upgrade_database(engine: Engine) -> tuple[str | None, str]:
    """Brings the schema to the newest version, in one transaction; does nothing if it is there already.

    Args:
        engine: A writable database.

    Returns:
        (revision before, revision after).

    Raises:
        DatabaseMistake: If the schema is of a newer quantsweep, or foreign tables are in the way.
    """
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
            before = _revision(connection)
            if before == HEAD:
                return before, HEAD
            if before is not None and _is_newer(before):
                raise _newer(engine, before)
            if before is None:
                _check_foreign(engine, connection)
            _migrate(connection)
            return before, HEAD
    except DBAPIError as error:
        raise mistake_of(engine, error) from error


def name_of(engine: Engine) -> str:
    """Returns the address of a database as shown to people: the path, or the URL without its password."""
    if engine.dialect.name == "sqlite":
        return unquote((engine.url.database or "").removeprefix("file://"))
    return engine.url.render_as_string(hide_password=True)


def mistake_of(engine: Engine, error: DBAPIError) -> DatabaseMistake:
    """Turns an error of the driver into one message for people.

    Args:
        engine: The database.
        error: What the driver raised.

    Returns:
        What to raise instead.
    """
    # The driver's first line says what happened; the rest repeats the statement or the attempts.
    reason = (
        str(error.orig).strip().splitlines()[0].rstrip(".") if str(error.orig).strip() else type(error.orig).__name__
    )
    name = name_of(engine)
    if "not a database" in reason or "malformed" in reason:
        return DatabaseMistake(f"{name} is not an SQLite database, or it is damaged ({reason}); name another file")
    if "readonly" in reason or "read-only" in reason:
        return DatabaseMistake(f"the database {name} cannot be written: it is read-only")
    if "locked" in reason:
        return DatabaseMistake(f"the database {name} has been locked by another process for {_BUSY_SECONDS} s")
    return DatabaseMistake(f"the database {name} cannot be used: {reason}")


def _engine(url: str, create: bool, read_only: bool) -> Engine:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.startswith("sqlite"):
        return _sqlite(_sqlite_path(url), create, read_only)
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgresql("postgresql+psycopg" + url[len(scheme) :], read_only)
    raise DatabaseMistake(
        f"the database URL starts with {scheme}://; choices: a path, sqlite:///PATH, postgresql://USER@HOST/NAME"
    )


def _sqlite_path(url: str) -> Path:
    if "://" not in url:
        path = url
    else:
        scheme, _, rest = url.partition("://")
        if scheme not in ("sqlite", "sqlite+pysqlite") or not rest.startswith("/"):
            raise DatabaseMistake(f"{url} is not an SQLite URL; write sqlite:///PATH, or only the path")
        path = rest[1:]
    if path in ("", ":memory:"):
        raise DatabaseMistake(f"{url!r} names no file; an SQLite database must be a file, such as ./quantsweep.db")
    return Path(path)


def _sqlite(path: Path, create: bool, read_only: bool) -> Engine:
    _check_file(path, create, read_only)
    mode = "ro" if read_only else "rwc" if create else "rw"
    engine = create_engine(
        make_url("sqlite+pysqlite://").set(database=path.absolute().as_uri(), query={"mode": mode, "uri": "true"}),
        json_serializer=_json,
        connect_args={"timeout": _BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # pysqlite would begin transactions by itself, too late and never as IMMEDIATE.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA foreign_keys=ON")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads before it writes would fail with SQLITE_BUSY if another wrote in between.
        reads = read_only or connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _check_file(path: Path, create: bool, read_only: bool) -> None:
    if path.is_dir():
        raise DatabaseMistake(f"the database {path} is a folder; it must be a file")
    if not path.parent.is_dir():
        raise DatabaseMistake(f"the database {path} cannot be opened: the folder {path.parent} does not exist")
    if path.exists():
        _check_content(path, create)
        if not read_only and not os.access(path, os.W_OK):
            raise DatabaseMistake(f"the database {path} cannot be written: the file is read-only")
    elif not create:
        raise DatabaseMistake(
            f"there is no database {path}; `quantsweep sweep` makes it, `--db` or QUANTSWEEP_DB names another"
        )
    if not read_only and not os.access(path.parent, os.W_OK):
        raise DatabaseMistake(f"the database {path} cannot be written: the folder {path.parent} is read-only")


def _check_content(path: Path, create: bool) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE_MAGIC))
    except OSError as error:
        raise DatabaseMistake(f"the database {path} cannot be read: {error.strerror}") from error
    if start != _SQLITE_MAGIC and not (create and start == b""):
        raise DatabaseMistake(f"{path} is not an SQLite database; name another file")


def _postgresql(url: str, read_only: bool) -> Engine:
    options = "-c TimeZone=UTC" + (" -c default_transaction_read_only=on" if read_only else "")
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            json_serializer=_json,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "keepalives": 1,
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": 60_000,
                "application_name": "quantsweep",
                "options": options,
            },
        )
    except ModuleNotFoundError as error:
        raise DatabaseMistake(
            "PostgreSQL needs the driver psycopg, which is not installed; run: pip install 'quantsweep[postgresql]'"
        ) from error
    except (ArgumentError, ValueError) as error:
        raise DatabaseMistake("the database URL cannot be read; write postgresql://USER:PASSWORD@HOST/NAME") from error


def _json(value: Any) -> str:
    # NaN and infinity are no JSON: PostgreSQL refuses them, and readers in other languages choke on them.
    return json.dumps(value, allow_nan=False)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return found


def _is_newer(found: str) -> bool:
    return not found.isdigit() or int(found) > int(HEAD)


def _newer(engine: Engine, found: str) -> DatabaseMistake:
    return DatabaseMistake(
        f"the database {name_of(engine)} has schema {found}, newer than {HEAD}, the newest that this quantsweep knows; "
        "install a newer quantsweep"
    )


def _check_revision(engine: Engine, found: str | None) -> None:
    if found is None:
        raise DatabaseMistake(f"the database {name_of(engine)} holds no results of quantsweep; `--db` names another")
    if found == HEAD:
        return
    if _is_newer(found):
        raise _newer(engine, found)
    raise DatabaseMistake(
        f"the database {name_of(engine)} has schema {found}, older than {HEAD}; back it up, then run: "
        f"quantsweep db upgrade --db {name_of(engine)}"
    )


def _check_foreign(engine: Engine, connection: Connection) -> None:
    ours = sorted(set(inspect(connection).get_table_names()) & set(tables.tables))
    if ours:
        raise DatabaseMistake(
            f"the database {name_of(engine)} already has a table {ours[0]} that quantsweep did not make; name another"
        )


def _missing(connection: Connection) -> list[str]:
    inspector = inspect(connection)
    present = {*inspector.get_table_names(), *inspector.get_view_names()}
    problems = []
    for table in (*tables.sorted_tables, *views.sorted_tables):
        if table.name not in present:
            problems.append(f"{table.name} is missing")
            continue
        found = {column["name"] for column in inspector.get_columns(table.name)}
        problems += [f"{table.name}.{column.name} is missing" for column in table.c if column.name not in found]
    return problems


def _damage(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []
    pages = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(5)") if row[0] != "ok"]
    dangling = {row[0] for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}
    return pages + [f"{table} refers to rows that do not exist" for table in sorted(dangling)]


def _check_writable(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    try:
        with engine.begin():
            pass
    except DBAPIError as error:
        raise mistake_of(engine, error) from error


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")
