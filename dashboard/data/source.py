"""Where a server's pages read: one store for all, opened again when its database comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from dashboard.data.reading import Reading, reading
from dashboard.data.snapshot import Snapshot, read
from nas.store import Store, StoreUnavailable, StudyRecord, TrialRecord
from nas.store.tallies import Speed
from search_space.contract import Progress

T = TypeVar("T")
KEPT = 24  # drawn things that are remembered, over all pages and studies


class Source:
    """A database's studies. Safe to share between the threads of a server's pages.

    Every method raises InputError or StoreUnavailable, each one line, while there is no
    database that can be read, and works again when there is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.RLock()
        self._store: Store | None = None
        self._snapshots: dict[str, Snapshot] = {}
        self._drawn: dict[Hashable, Any] = {}

    def studies(self) -> list[StudyRecord]:
        """All studies, the newest first."""
        return self._ask(lambda store: store.studies())

    def curve(self, evaluation_id: int) -> list[Progress]:
        """An evaluation's points by step."""
        return self._ask(lambda store: store.curve(evaluation_id))

    def lease_left(self, study_id: int) -> float:
        """Seconds until the hold of the study's driver runs out; at most 0 without a driver."""
        return self._ask(lambda store: store.lease_left(study_id))

    def snapshot(self, name: str) -> Snapshot:
        """The study as it stands; only what happened since the last call is read."""
        with self._lock:
            found = self._ask(lambda store: read(store, name, self._snapshots.get(name)))
            self._snapshots[name] = found
            return found

    def reading(self, name: str) -> Reading:
        """The study as it stands, in columns."""
        snapshot = self.snapshot(name)
        return self.once(("reading", snapshot.stamp), lambda: reading(snapshot))

    def trial(self, study_id: int, number: int) -> TrialRecord:
        """One trial with all that is known of it; raise InputError for an unknown one."""
        return self._ask(lambda store: store.trial(study_id, number))

    def speeds(self) -> dict[int, Speed]:
        """By study id, what its workers did in how many seconds."""
        return self._ask(lambda store: store.speeds())

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned for this key; made again when it was not asked for in a while."""
        with self._lock:
            found: T = self._drawn.pop(key) if key in self._drawn else make()
            self._drawn[key] = found
            while len(self._drawn) > KEPT:
                del self._drawn[next(iter(self._drawn))]
            return found

    def _ask(self, body: Callable[[Store], T]) -> T:
        with self._lock:
            try:
                return body(self._opened())
            except StoreUnavailable:
                # Another file may be there by now, or the server back: once more from the start.
                self._close()
                return body(self._opened())

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store.open(self.url, create=False)
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None
        self._snapshots.clear()
        self._drawn.clear()
