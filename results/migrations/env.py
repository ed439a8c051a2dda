"""Runs the migrations on the connection that `results.connect` hands over, inside its transaction."""

from alembic import context

from results.schema import VERSION_TABLE, tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables,
    version_table=VERSION_TABLE,
    include_name=lambda name, kind, parents: kind != "table" or name in tables.tables,
    render_as_batch=True,
)
context.run_migrations()
