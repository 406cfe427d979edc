"""The schema's version: checked by one SELECT, so that Alembic is imported only when one is due."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from nas.store.engine import START_HINT
from nas.store.errors import NeedsMigration, NoStudiesYet
from nas.store.redaction import display
from search_space.errors import InputError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0004"
# Its own name, so that other users of Alembic (Optuna) can share the database.
VERSION_TABLE = "nas_alembic_version"
_ADVISORY_LOCK = 0x6E6173  # "nas"


def ensure_schema(engine: Engine, create: bool) -> None:
    """Bring the tables to `HEAD`; without `create`, only check that they are there.

    Raises InputError when the database is from a newer version, or when `create` is false
    and the tables are missing or old.
    """
    with engine.connect() as connection:
        found = current_version(connection)
    if create and (found is None or found < HEAD):
        _upgrade(engine)
    else:
        require_head(found, display(engine.url))


def require_head(found: str | None, where: str) -> None:
    """Raise InputError unless the schema's version is `HEAD`."""
    if found == HEAD:
        return
    if found is None:
        raise NoStudiesYet(f"the database {where} has no studies yet; {START_HINT}")
    if found > HEAD:
        raise InputError(
            f"the database {where} has schema {found} and this version knows up to {HEAD}; "
            "upgrade ffn-nas"
        )
    raise NeedsMigration(
        f"the database {where} has schema {found}, {HEAD} is needed; run: nas db upgrade"
    )


def current_version(connection: Connection) -> str | None:
    """The schema's version, or None when the tables were never made."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return version


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for the migrations in this package, over an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _upgrade(engine: Engine) -> None:
    from alembic import command

    with engine.connect() as connection:
        # Two processes may open a new database at once: the second waits and finds it done.
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        if current_version(connection) != HEAD:
            command.upgrade(alembic_config(connection), HEAD)
        connection.commit()
