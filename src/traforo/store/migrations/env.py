"""Runs the migrations on a connection that is handed over, within its transaction; see `traforo.store.databases`."""

from alembic import context

from traforo.store import tables

context.configure(connection=context.config.attributes["connection"], target_metadata=tables.metadata)
context.run_migrations()
