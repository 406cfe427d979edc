"""From a database URL to an engine; whatever is wrong with the URL is an InputError."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from nas.store.redaction import display, hidden, without_secrets
from search_space.errors import InputError, require
from search_space.plain import checked
from search_space.shown import shown

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
        checked(unquote(text), "a database URL")
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InputError(f"a database URL has the form {FORMS}: got {hidden(text)}") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    require(
        url.drivername in ("sqlite", "postgresql+psycopg"),
        f"the database must be SQLite or PostgreSQL: got {shown(url.drivername)}; use {FORMS}",
    )
    require(
        "@" not in (url.host or ""),
        f"an @ in a database URL's user or password is written %40: got {hidden(text)}",
    )
    if url.drivername == "sqlite":
        require(
            url.host is None and url.username is None,
            f"an SQLite URL is sqlite:/// and a path: got {hidden(text)}; use {DEFAULT_URL}",
        )
        require(
            url.database not in (None, "", ":memory:"),
            "an SQLite database needs a file, because several processes read it: "
            f"got {display(url)}; use {DEFAULT_URL}",
        )
        require(
            not url.query,
            f"an SQLite URL is sqlite:/// and a path, without '?': got {display(url)}; rename "
            "the file if its name has one",
        )
    return url


def open_engine(url: URL, create: bool) -> Engine:
    """An engine whose server answered; raise InputError with the reason when it did not.

    create: whether a missing SQLite file may be made.
    """
    options: dict[str, Any] = {}
    if url.drivername != "sqlite":
        options = {"pool_pre_ping": True, "connect_args": CONNECTION}
    try:
        # A NaN would be legal on SQLite and illegal on PostgreSQL: refused on both.
        dumps = partial(json.dumps, allow_nan=False)
        engine = create_engine(url, json_serializer=dumps, **options)
        if url.drivername == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
        engine.connect().close()
    except ModuleNotFoundError as error:
        raise InputError(
            f"{display(url)} needs the package {error.name}: pip install 'psycopg[binary]'"
        ) from None
    except DBAPIError as error:
        engine.dispose()
        raise InputError(unusable(url, error)) from None
    except (ArgumentError, TypeError, ValueError, OverflowError) as error:
        # SQLAlchemy and the drivers check a URL's options as they please.
        reason = without_secrets(shown(str(error))[1:-1], url)
        raise InputError(
            f"the database URL {display(url)} has an option that its driver refuses: {reason}; "
            f"use {FORMS}"
        ) from None
    return engine


def check_file(path: Path, create: bool) -> None:
    """Raise InputError unless an SQLite file is there, or may be made there with `create`."""
    try:
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
    except OSError as error:
        raise InputError(
            f"cannot open the database {shown(str(path))}: {error.strerror}; choose another file"
        ) from None
    require(
        stat.S_ISREG(mode) or stat.S_ISDIR(mode),  # opening a pipe would wait for ever
        f"the database must be a file: {path} is a pipe, a device or a socket; choose another",
    )
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
    reason = without_secrets(str(error.orig).strip().split("\n")[0], url)
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
