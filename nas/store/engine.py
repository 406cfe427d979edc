"""From a database URL to an engine; whatever is wrong with the URL is an InputError."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Engine, NullPool, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError, StatementError

from nas.store.errors import NoStudiesYet
from nas.store.redaction import display, hidden, without_secrets
from nas.store.sqlite_file import CHANGES, SQLiteFile
from search_space.errors import InputError, require, shown
from search_space.places import DEFAULT_DB
from search_space.plain import checked

log = logging.getLogger(__name__)
FORMS = "sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
LOCK_WAIT_MS = 30_000
SHORT_LOCK_WAIT_MS = 2_000  # once the lock was waited for in vain, or somebody asked to stop
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
            f"an SQLite URL is sqlite:/// and a path: got {hidden(text)}; use {DEFAULT_DB}",
        )
        require(
            url.database not in (None, "", ":memory:"),
            "an SQLite database needs a file, because several processes read it: "
            f"got {display(url)}; use {DEFAULT_DB}",
        )
        require(
            "?" not in text,
            f"an SQLite URL is sqlite:/// and a path, without '?' and options: got {display(url)} "
            "and more; a ? in the file's name is written %3F",
        )
    return url


def open_engine(url: URL, create: bool) -> Engine:
    """An engine whose server answered; raise InputError with the reason when it did not.

    create: whether it will be written; PostgreSQL is asked for read-only transactions otherwise.
    """
    options: dict[str, Any] = {}
    if url.drivername != "sqlite":
        options = {"pool_pre_ping": True, "connect_args": CONNECTION}
        options["execution_options"] = {"postgresql_readonly": not create}
    try:
        # A NaN would be legal on SQLite and illegal on PostgreSQL: refused on both.
        dumps = partial(json.dumps, allow_nan=False)
        engine = create_engine(url, json_serializer=dumps, **options)
        if url.drivername == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
        with engine.connect() as connection:
            if url.drivername == "sqlite":
                # SQLite opens a file that it may not write without a word: ask for the lock.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
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


def reader_engine(url: URL, file: SQLiteFile, *, still: bool) -> Engine:
    """An engine that reads an SQLite file, a connection a session: none stays open in between.

    A reader that is the last to leave a WAL database cannot tidy up behind its writer.
    """
    creator = partial(file.connect, still=still)
    engine = create_engine(url, creator=creator, poolclass=NullPool)
    event.listen(engine, "connect", _wait_for_locks)
    return engine


def check_file(path: Path, create: bool) -> None:
    """Raise InputError unless an SQLite file is there, or can be made with `create`."""
    try:
        folder, exists = path.parent.is_dir(), path.exists()
        mode = path.stat().st_mode if exists else stat.S_IFREG
        needed = [path.parent, path] if exists else [path.parent]
        writable = all(os.access(each, os.W_OK) for each in needed)
    except OSError as error:
        raise InputError(
            f"cannot open the database {shown(str(path))}: {error.strerror}; choose another file, "
            "or check your rights"
        ) from None
    require(
        stat.S_ISREG(mode) or stat.S_ISDIR(mode),  # opening a pipe would wait for ever
        f"the database must be a file: {path} is a pipe, a device or a socket; choose another",
    )
    require(
        folder,
        f"the database's folder must exist: {path.parent} does not; create it or choose another",
    )
    require(
        not stat.S_ISDIR(mode),
        f"the database must be a file: {path} is a folder; name a file in it",
    )
    # Asked for first: SQLite waits half a minute for a lock that it cannot have.
    require(
        writable or not create,
        f"cannot write the database {path}: check that the file and its folder are writable",
    )
    require(create or exists, f"no studies at {path} yet; {START_HINT}", NoStudiesYet)


def unreadable(url: URL, error: SQLAlchemyError) -> str:
    """Why a database cannot be read, in one line without SQL and without its password."""
    reason, where = _reason(url, error), display(url)
    if url.drivername != "sqlite":
        return f"cannot read the database {where}: {reason}; check that its server runs"
    if "not a database" in reason:
        return f"{url.database} is not an SQLite database; choose another file"
    changes = Path(f"{url.database}{CHANGES}")
    if "unable to open" in reason and changes.exists():
        return (
            f"cannot read the database {url.database}: its last changes lie in {changes.name}, "
            "and SQLite reads them only where it may make files; copy both to such a folder"
        )
    return (
        f"cannot read the database {url.database}: {reason}; check that the file can be read "
        "and is whole"
    )


def _reason(url: URL, error: SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, StatementError) else error.args[0]
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return without_secrets(lines[0], url)


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


def discard_unused(file: Path) -> None:
    """Remove an SQLite file that holds no study and that nobody else has open."""
    try:
        with closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=0)
        ) as alone:
            # SQLite leaves the WAL only for whoever is alone, and then keeps all others out.
            alone.execute("PRAGMA locking_mode=EXCLUSIVE")
            alone.execute("PRAGMA journal_mode=DELETE")
            alone.execute("BEGIN EXCLUSIVE")
            if alone.execute("SELECT count(*) FROM study").fetchone()[0] == 0:
                file.unlink()
    except (sqlite3.Error, OSError) as error:
        log.debug("%s was not removed", file, exc_info=True)
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
            log.warning("%s was not removed: %s", file, error)


def unusable(url: URL, error: DBAPIError) -> str:
    """Why a database cannot be opened, and the way out."""
    reason = _reason(url, error)
    if url.drivername != "sqlite":
        return f"cannot reach the database {display(url)}: {reason}; is the server running?"
    if "not a database" in reason:
        return f"{url.database} is not an SQLite database; choose another file"
    return (
        f"cannot write the database {url.database}: {reason}; "
        "check that the file and its folder are writable"
    )


def _wait_for_locks(connection: Any, _record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={LOCK_WAIT_MS}")


def hurry_where(engine: Engine, hurried: Callable[[], bool]) -> None:
    """Let an SQLite writer's sessions wait only briefly for locks while `hurried()`."""

    def set_wait(connection: Any, _record: object, _proxy: object) -> None:
        wait = min(LOCK_WAIT_MS, SHORT_LOCK_WAIT_MS) if hurried() else LOCK_WAIT_MS
        connection.execute(f"PRAGMA busy_timeout={wait}")

    event.listen(engine, "checkout", set_wait)


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
