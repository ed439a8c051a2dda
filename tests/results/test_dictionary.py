"""The data dictionary in docs/schema.md."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from results.connect import MIGRATIONS
from results.dictionary import dictionary
from results.schema import HEAD, tables
from results.views import views

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


def test_the_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text() == dictionary(), "run: python -m results.dictionary > docs/schema.md"


def test_every_table_and_column_says_what_it_means() -> None:
    for table in (*tables.sorted_tables, *views.sorted_tables):
        assert table.comment
        for column in table.c:
            assert column.comment, f"{table.name}.{column.name}"


def test_the_newest_migration_is_the_schema_that_the_code_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
