"""An SQLite file as a reader opens it: nothing is written, and no file is made beside it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from nas.store.errors import StoreUnavailable

_BESIDE = ("-wal", "-journal")  # where SQLite keeps changes that the file does not have yet
CHANGES = "-wal"


class Stamp(NamedTuple):
    """Which file it is and whether it was written: equal stamps mean that nothing happened."""

    device: int
    inode: int
    size: int
    changed_ns: int
    beside: bool  # changes lie beside the file

    def same_file(self, other: Stamp) -> bool:
        """Whether both are of one file, however often it was written in between."""
        return (self.device, self.inode) == (other.device, other.inode)


class SQLiteFile:
    """The file of a database; raises StoreUnavailable once it is another than at first."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.real = path.resolve()  # SQLite follows links before it looks beside the file
        self.first = self._stat()

    def stamp(self) -> Stamp:
        """The file as it stands."""
        found = self._stat()
        if not found.same_file(self.first):
            raise StoreUnavailable(
                f"the database {self.path} was replaced by another file while it was open; "
                "open it again"
            )
        return found

    def connect(self, *, still: bool) -> sqlite3.Connection:
        """A connection that cannot write.

        still: read the file alone, as if nobody could change it. A plain reader of a WAL
        database makes -wal and -shm beside it: it cannot where the folder is read-only, and it
        leaves them behind elsewhere. While no changes lie beside the file, it holds all there
        is, so that reading it alone is right, as long as it stays as it is: the caller compares
        `stamp` before and after.
        """
        uri = f"file:{quote(bytes(self.path))}?mode=ro{'&immutable=1' if still else ''}"
        return sqlite3.connect(uri, uri=True, check_same_thread=False)

    def _stat(self) -> Stamp:
        try:
            found = self.path.stat()
            beside = any(_has_content(f"{self.real}{suffix}") for suffix in _BESIDE)
        except OSError as error:
            raise StoreUnavailable(
                f"the database {self.path} cannot be found any more ({error.strerror}); "
                "put it back, or give another with --db"
            ) from None
        return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, beside)


def _has_content(path: str) -> bool:
    try:
        return Path(path).stat().st_size > 0
    except FileNotFoundError:
        return False
