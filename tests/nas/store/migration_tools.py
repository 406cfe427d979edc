"""Databases that former versions wrote, put onto the database of a test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, create_engine, insert, inspect, select, text

from nas.store.migrate import VERSION_TABLE, alembic_config
from nas.store.models import Base

DATA = Path(__file__).parents[1] / "data"


@contextmanager
def frozen_database(folder: Path, version: str) -> Iterator[sqlite3.Connection]:
    """The database that a version wrote, as it left it, in a file of the folder."""
    with sqlite3.connect(folder / "frozen.db") as connection:
        connection.executescript((DATA / f"schema_{version}.sql").read_text())
        yield connection
    connection.close()


def restore(url: str, version: str, frozen: sqlite3.Connection, tables: Sequence[str]) -> None:
    """Write the frozen database of a version to an empty one.

    tables: all that have rows, parents first.
    """
    engine = create_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            script = (DATA / f"schema_{version}.sql").read_text()
            connection.connection.driver_connection.executescript(script)
        else:
            command.upgrade(alembic_config(connection), version)
            _copy(frozen, connection, tables)
    engine.dispose()


def _copy(frozen: sqlite3.Connection, connection, tables: Sequence[str]) -> None:
    """Write the frozen rows as the former version wrote them, which numbered them by itself."""
    found = MetaData()
    found.reflect(connection)
    source: Engine = create_engine("sqlite://", creator=lambda: frozen)
    factory, frozen.row_factory = frozen.row_factory, None
    with source.connect() as reader:
        typed = MetaData()
        typed.reflect(reader)
        for name in tables:
            rows = [dict(row._mapping) for row in reader.execute(select(typed.tables[name]))]
            connection.execute(insert(found.tables[name]), rows)
            if "id" in found.tables[name].c:
                connection.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), {len(rows)})")
                )
    frozen.row_factory = factory


def differences(url: str) -> list:
    """What the tables have otherwise than the models, and tables of a migration that are left."""
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        found = compare_metadata(
            MigrationContext.configure(connection, opts=options), Base.metadata
        )
        left = [name for name in inspect(connection).get_table_names() if "former" in name]
    engine.dispose()
    return [*found, *left]
