"""`Database`: an open engine whose schema is right, and its sessions.

Every write transaction begins with a write, so that SQLite takes its lock before anything
is read and PostgreSQL holds the row: no reader's view can go stale inside a transaction.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker

from nas.store.engine import check_file, discard_empty, open_engine, parse_url, unusable
from nas.store.migrate import ensure_schema
from nas.store.outage import Outage
from nas.store.redaction import display
from search_space.errors import InputError


class Database:
    """One database; safe to share between threads. Make it with `open`.

    url: the database for people, without its password.
    """

    def __init__(self, engine: Engine, patient: bool = False) -> None:
        self._engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)
        self.url = display(engine.url)
        self.outage = Outage(self.url, patient)
        self.made_file: Path | None = None  # the SQLite file that `open` had to make

    @classmethod
    def open(cls, url: str, create: bool = True) -> Self:
        """Open `sqlite:///FILE` or `postgresql+psycopg://...`.

        create: make the file and the tables, or migrate them, when needed; a reader sets false.
        Raises InputError for a URL, file, server or schema that cannot be used.
        """
        parsed = parse_url(url)
        file = Path(str(parsed.database)) if parsed.drivername == "sqlite" else None
        if file is not None:
            check_file(file, create)
        made = file if file is not None and not file.exists() else None
        try:
            engine = _open_current(parsed, create)
        except BaseException:
            if made is not None:
                discard_empty(made)
            raise
        database = cls(engine, patient=create)
        database.made_file = made
        return database

    @classmethod
    def upgrade(cls, url: str) -> Self:
        """Open a database that exists, and bring its tables to this version's schema."""
        parsed = parse_url(url)
        if parsed.drivername == "sqlite":
            check_file(Path(str(parsed.database)), create=False)
        return cls.open(url)

    @property
    def file(self) -> Path | None:
        """The SQLite database's file, links followed; None on a server."""
        url = self._engine.url
        return Path(str(url.database)).resolve() if url.drivername == "sqlite" else None

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url})"


def _open_current(url: URL, create: bool) -> Engine:
    """An engine over tables of this version."""
    engine = open_engine(url, create)
    try:
        ensure_schema(engine, create)
    except DBAPIError as error:
        engine.dispose()
        raise InputError(unusable(url, error)) from error
    except BaseException:
        engine.dispose()
        raise
    return engine
