"""Transactions of the writer: upserts that both databases take, and errors of the driver as mistakes of the user's."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from results.connect import mistake_of
from results.rows import plain


class Transactions:
    """Opens transactions on one database."""

    def __init__(self, engine: Engine) -> None:
        """Takes an engine of `results.connect.open_database`."""
        self._engine = engine
        self._reader = engine.execution_options(reads=True)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Opens a transaction that writes; it is committed at the end, or rolled back by an error.

        Yields:
            The connection.

        Raises:
            DatabaseMistake: If the database cannot be used.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise mistake_of(self._engine, error) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Opens a transaction that only reads.

        Yields:
            The connection.

        Raises:
            DatabaseMistake: If the database cannot be used.
        """
        try:
            with self._reader.connect() as connection:
                yield connection
        except OperationalError as error:
            raise mistake_of(self._engine, error) from error


def upsert(connection: Connection, table: Table, row: Mapping[str, Any], keep: Sequence[str] = ()) -> None:
    """Inserts a row, or changes the one of the same primary key.

    Args:
        connection: Within a transaction.
        table: The table.
        row: Values by column name.
        keep: Columns that stay as they are if the row is there.
    """
    # The two dialects' statements have no common type, though the same methods.
    insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values({name: plain(table, name, value) for name, value in row.items()})
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in row if name not in (*keys, *keep)}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))


def change(connection: Connection, table: Table, key: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Changes one row.

    Args:
        connection: Within a transaction.
        table: The table.
        key: Columns and values that tell the row from all others.
        values: New values by column name.

    Raises:
        KeyError: If there is no such row.
    """
    statement = update(table).where(*(table.c[name] == value for name, value in key.items())).values(values)
    if connection.execute(statement).rowcount != 1:
        raise KeyError(f"{table.name} has no row {key}")
