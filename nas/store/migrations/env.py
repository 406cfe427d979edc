"""Alembic's entry: run the migrations over the connection that `nas.store.migrate` opened."""

from alembic import context

from nas.store.migrate import VERSION_TABLE
from nas.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
