"""`Database`: an open engine whose schema is right, and its sessions.

Every write transaction begins with a write, so that SQLite takes its lock before anything is read.
Where it concerns a study, that is a write to the study's row (`nas.store.locks`): PostgreSQL then
has one writer a study, too, and no two of them can wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from nas.store.engine import (
    check_file,
    discard_empty,
    hurry_where,
    open_engine,
    parse_url,
    reader_engine,
    unreadable,
    unusable,
)
from nas.store.errors import StoreUnavailable
from nas.store.migrate import current_version, ensure_schema, require_head
from nas.store.outage import Outage
from nas.store.redaction import display
from nas.store.sqlite_file import SQLiteFile
from search_space.errors import InputError

T = TypeVar("T")
STEADY_READS = 3  # of a file that changes meanwhile, before SQLite's locks are used


class Database:
    """One database; safe to share between threads. Make it with `open`.

    url: the database for people, without its password.
    """

    def __init__(
        self,
        engine: Engine,
        file: SQLiteFile | None = None,
        still: Engine | None = None,
        patient: bool = False,
    ) -> None:
        """still: a reader's second engine, for an SQLite file that has no changes beside it."""
        self._engine, self._file, self._still = engine, file, still
        self._sessions = sessionmaker(engine, expire_on_commit=False)
        self.url = display(engine.url)
        self.outage = Outage(self.url, patient)
        if patient and file is not None:
            hurry_where(engine, self.outage.hurried)
        self.made_file: Path | None = None  # the SQLite file that `open` had to make

    @classmethod
    def open(cls, url: str, create: bool = True) -> Self:
        """Open `sqlite:///FILE` or `postgresql+psycopg://...`.

        create: make the file and the tables, or migrate them, when needed. A reader sets false:
        it needs no right to write, and it makes no file.
        Raises InputError for a URL, file, server or schema that cannot be used.
        """
        parsed = parse_url(url)
        path = Path(str(parsed.database)) if parsed.drivername == "sqlite" else None
        if path is not None:
            check_file(path, create)
        if path is not None and not create:
            return cls._open_reader(url, path)
        made = path if path is not None and not path.exists() else None
        try:
            engine = _open_current(parsed, create)
        except BaseException:
            if made is not None:
                discard_empty(made)
            raise
        database = cls(engine, SQLiteFile(path) if path is not None else None, patient=create)
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

    @classmethod
    def _open_reader(cls, url: str, path: Path) -> Self:
        parsed = parse_url(url)
        try:
            file = SQLiteFile(path)
            live, still = (reader_engine(parsed, file, still=each) for each in (False, True))
            database = cls(live, file, still)
            found = database._read(lambda session: current_version(session.connection()))
        except StoreUnavailable as error:
            raise InputError(str(error)) from None
        require_head(found, database.url)
        return database

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction, over a bare connection: sessions and mapped objects cost much time."""
        with self._sessions.begin() as session:
            yield session.connection()

    def _read(self, body: Callable[[Session], T]) -> T:
        """What `body` reads in a session; every read passes here. `body` may run again.

        A writer outlasts an outage. Raises StoreUnavailable when the database cannot be read, is
        gone, or was replaced; inside an operation, which decides, what the driver raised.
        """
        if self.outage.inside:
            return self._read_once(body)
        try:
            if self.outage.patient:
                return self.outage.outlast(partial(self._read_once, body))
            return self._read_once(body)
        except SQLAlchemyError as error:
            raise StoreUnavailable(unreadable(self._engine.url, error)) from None

    def _read_once(self, body: Callable[[Session], T]) -> T:
        if self._still is not None and (found := self._read_still(body)) is not None:
            return found[0]
        if self._file is not None:
            self._file.stamp()
        with self._sessions() as session:
            return body(session)

    def _read_still(self, body: Callable[[Session], T]) -> tuple[T] | None:
        """What `body` reads from the file alone; None while a writer is at work."""
        assert self._file is not None
        for _ in range(STEADY_READS):
            before = self._file.stamp()
            if before.beside:
                return None
            failure: Exception | None = None
            try:
                with self._sessions(bind=self._still) as session:
                    found = body(session)
            except (SQLAlchemyError, ValueError, RuntimeError) as error:
                failure = error
            # What was read while the file changed may mix two states of it, errors included.
            if self._file.stamp() == before:
                if failure is not None:
                    raise failure
                return (found,)
        return None

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
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
