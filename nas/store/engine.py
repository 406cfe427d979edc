"""From a database URL to an engine; whatever is wrong with the URL is an InputError."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from search_space.errors import InputError, require

DEFAULT_URL = "sqlite:///nas.db"
FORMS = "sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
LOCK_WAIT_MS = 30_000
CONNECT_WAIT_S = 10
# A network that drops what is sent ends a connection after half a minute, not after two hours.
CONNECTION = {
    "connect_timeout": CONNECT_WAIT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
START_HINT = "start one with: nas launch STUDY.yaml"


def parse_url(text: str) -> URL:
    """Read a database URL; raise InputError unless it is one of the two forms."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InputError(f"a database URL has the form {FORMS}: got {_redacted(text)!r}") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    require(
        url.drivername in ("sqlite", "postgresql+psycopg"),
        f"the database must be SQLite or PostgreSQL: got {url.drivername!r}; use {FORMS}",
    )
    if url.drivername == "sqlite":
        require(
            url.database not in (None, "", ":memory:"),
            "an SQLite database needs a file, because several processes read it: "
            f"got {display(url)}; use {DEFAULT_URL}",
        )
    return url


def display(url: URL) -> str:
    """The URL for people: no password, neither in the authority nor in the query."""
    secret = [key for key in url.query if "pass" in key.lower()]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def open_engine(url: URL, create: bool) -> Engine:
    """An engine whose server answered; raise InputError with the reason when it did not.

    create: whether a missing SQLite file may be made.
    """
    if url.drivername == "sqlite":
        check_file(Path(str(url.database)), create)
    options: dict[str, Any] = {}
    if url.drivername != "sqlite":
        options = {"pool_pre_ping": True, "connect_args": CONNECTION}
    try:
        # A NaN would be legal on SQLite and illegal on PostgreSQL: refused on both.
        dumps = partial(json.dumps, allow_nan=False)
        engine = create_engine(url, json_serializer=dumps, **options)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{display(url)} needs the package {error.name}: pip install 'psycopg[binary]'"
        ) from None
    if url.drivername == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
    try:
        engine.connect().close()
    except DBAPIError as error:
        engine.dispose()
        raise InputError(unusable(url, error)) from None
    return engine


def _redacted(text: str) -> str:
    # A malformed URL may still hold a password: only what follows the last @ is shown.
    head, at, tail = text.partition("?")[0].rpartition("@")
    return f"***@{tail}" if at else tail or head


def check_file(path: Path, create: bool) -> None:
    """Raise InputError unless an SQLite file is there, or may be made there with `create`."""
    require(
        path.parent.is_dir(),
        f"the database's folder must exist: {path.parent} does not; create it or choose another",
    )
    require(
        not path.is_dir(), f"the database must be a file: {path} is a folder; name a file in it"
    )
    require(create or path.exists(), f"no studies at {path} yet; {START_HINT}")


def discard_empty(file: Path) -> None:
    """Remove an SQLite file that was just made and has no tables: its opening failed."""
    parts = [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm")]
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as reader:
            empty = reader.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    except sqlite3.Error:
        # What stopped the opening may stop this: a first page and an empty log hold nothing.
        sizes = [part.stat().st_size if part.exists() else 0 for part in parts]
        empty = sizes[0] <= 4096 and sizes[1] == 0
    if empty:
        for part in parts:
            part.unlink(missing_ok=True)


def unusable(url: URL, error: DBAPIError) -> str:
    """Why a database cannot be opened, and the way out."""
    reason = str(error.orig).strip().split("\n")[0]
    if url.drivername != "sqlite":
        return f"cannot reach the database {display(url)}: {reason}; is the server running?"
    if "not a database" in reason:
        return f"{url.database} is not an SQLite database; choose another file"
    return (
        f"cannot open the database {url.database}: {reason}; "
        "check that the file and its folder are writable"
    )


def _configure_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        # The wait comes first: switching a new file to WAL already needs a lock.
        cursor.execute(f"PRAGMA busy_timeout={LOCK_WAIT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
    finally:
        cursor.close()
