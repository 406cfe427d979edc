"""Where a server's pages read: one store for all, opened again when its database comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dashboard.data.curves import Curve, Curves
from dashboard.data.follower import Follower
from dashboard.data.kept import Kept
from dashboard.data.reading import Reading
from dashboard.data.studies import Summaries, Summary
from nas.store import EvaluationLog, Store, StoreUnavailable, StudyRecord, TrialRecord
from nas.store.tallies import Speed
from nas.views.comparison import Comparison, compare
from search_space.contract import Progress
from search_space.errors import InputError

T = TypeVar("T")
KEPT = 120  # drawn things that are remembered, over all pages and studies
KEPT_ALIKE = 8  # of these, whose keys begin alike: most are of a reading that has passed
CURVE_POINTS = 300  # of one curve that are read: a page is not much wider
LOG_LINES = 100  # of one evaluation that are read: the newest
FRESH_S = 1.0  # for which what is live is not read again
FOLLOWED = 4  # studies whose columns are kept: one of 50,000 trials takes some 100 MB


@dataclass(frozen=True, eq=False)
class Live:
    """A study and the curves of what runs.

    at: when it was read, by `time.monotonic`: the name of this look.
    """

    reading: Reading
    curves: Mapping[int, Curve]
    at: float


class Source:
    """A database's studies. Safe to share between the threads of a server's pages.

    Every method raises InputError or StoreUnavailable, each one line, while there is no
    database that can be read, and works again when there is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.RLock()  # of the store and the tables below; held for a moment only
        self._reading: dict[str, threading.RLock] = {}  # by study: two never read the same twice
        # By a key's beginning: two pages never make one thing twice, and do not wait for another.
        self._making: dict[Hashable, threading.RLock] = {}
        self._remembering = threading.Lock()
        self._store: Store | None = None
        self._followers: dict[str, Follower] = {}
        self._curves: dict[str, Curves] = {}
        self._summaries = Summaries()
        self._lives: dict[str, Live] = {}
        self._drawn: dict[Hashable, Any] = {}

    def studies(self) -> list[StudyRecord]:
        """All studies, the newest first."""
        return self._ask(lambda store: store.studies())

    def curve(self, evaluation_id: int) -> list[Progress]:
        """An evaluation's points by step; of many, `CURVE_POINTS` that are spread evenly."""

        def points(store: Store) -> list[Progress]:
            table = store.curve_columns({evaluation_id: -1}, CURVE_POINTS)[evaluation_id]
            rows = zip(*table.values(), strict=True)
            return [
                Progress(evaluation=evaluation_id, **dict(zip(table, row, strict=True)))
                for row in rows
            ]

        return self._ask(points)

    def logs(self, evaluation_ids: Sequence[int]) -> dict[int, EvaluationLog]:
        """What was said during these evaluations: the newest `LOG_LINES` of each."""
        return self._ask(lambda store: store.log_lines(evaluation_ids, LOG_LINES))

    def curves(self, reading: Reading) -> dict[int, Curve]:
        """The curves of the evaluations that run, and of the lower rungs of their runs."""
        with self._alone(reading.study.name):
            follower = self._curves.setdefault(reading.study.uid, Curves())
            return self._ask(lambda store: follower.read(store, reading))

    def live(self, name: str, slower: float = 1.0) -> Live:
        """The study and its curves as they stood at most `FRESH_S` seconds ago: readers who look
        within that time share one look.

        slower: times as long; of many readers each looks less often, and so may all of them.
        """
        with self._alone(name):
            found = self._lives.get(name)
            if found is None or time.monotonic() - found.at >= FRESH_S * slower:
                reading = self.reading(name)
                found = Live(reading, self.curves(reading), time.monotonic())
                self._lives[name] = found
            return found

    def summaries(self) -> list[Summary]:
        """All studies in a row each, the newest first."""
        with self._alone(""):  # no study's name
            return self._ask(lambda store: self._summaries.read(store, self._in_hand))

    def _in_hand(self, study: StudyRecord) -> Reading | None:
        """The study in columns, where these are known or kept, and say what they are asked."""
        with self._lock:
            follower = self._followers.get(study.name)
        if follower is None or not follower.is_near(study.uid):
            return None
        try:
            found = self.reading(study.name)
        except InputError:
            return None  # its own page says what is wrong
        return found if found.study.uid == study.uid else None

    def lease_left(self, study_id: int) -> float:
        """Seconds until the hold of the study's driver runs out; at most 0 without a driver."""
        return self._ask(lambda store: store.lease_left(study_id))

    def reading(self, name: str) -> Reading:
        """The study as it stands, in columns; only what happened since the last call is read.

        The same object as before, as long as nothing but curves has changed.
        """
        with self._alone(name):
            return self._ask(lambda store: self._follower(name).read(store, name))

    def trial(self, study_id: int, number: int) -> TrialRecord:
        """One trial with all that is known of it; raise InputError for an unknown one."""
        return self._ask(lambda store: store.trial(study_id, number))

    def compare(self, name: str, a: int, b: int) -> Comparison:
        """Two trials of a study in pairs; raise InputError where no number compares them."""

        def body(store: Store) -> Comparison:
            study = store.study(name)
            return compare(store, study, a, study, b)

        return self._ask(body)

    def speeds(self) -> dict[int, Speed]:
        """By study id, what its workers did in how many seconds.

        All evaluations are summed for it: anew when one has ended, not each time it is asked.
        """
        spent = self._ask(lambda store: store.spent_flops())
        key = ("speeds", tuple(sorted(spent.items())))
        return self.once(key, lambda: self._ask(lambda store: store.speeds()))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned for this key; made again when it was not asked for in a while.

        A key is a name, or a tuple that begins with one. Of things whose keys begin alike, one is
        made at a time.
        """
        found = self._remembered(key)
        if found is None:
            with self._remembering:
                making = self._making.setdefault(_family(key), threading.RLock())
            with making:
                found = self._remembered(key)
                if found is None:
                    found = (make(),)
                    self._remember(key, found)
        value: T = found[0]
        return value

    def _remembered(self, key: Hashable) -> tuple[Any] | None:
        with self._remembering:
            found: tuple[Any] | None = self._drawn.pop(key, None)
            if found is not None:
                self._drawn[key] = found  # the last one is dropped last
            return found

    def _remember(self, key: Hashable, found: tuple[Any]) -> None:
        with self._remembering:
            self._drawn[key] = found
            alike = [each for each in self._drawn if _family(each) == _family(key)]
            for each in alike[:-KEPT_ALIKE]:
                del self._drawn[each]
            while len(self._drawn) > KEPT:
                del self._drawn[next(iter(self._drawn))]

    def _alone(self, name: str) -> threading.RLock:
        with self._lock:
            return self._reading.setdefault(name, threading.RLock())

    def _follower(self, name: str) -> Follower:
        with self._lock:
            found = self._followers.pop(name, None) or Follower(Kept(self.url))
            self._followers[name] = found
            while len(self._followers) > FOLLOWED:
                del self._followers[next(iter(self._followers))]
            return found

    def _ask(self, body: Callable[[Store], T]) -> T:
        store = self._opened()
        try:
            return body(store)
        except StoreUnavailable:
            # Another file may be there by now, or the server back: once more from the start.
            self._close(store)
            return body(self._opened())

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = Store.open(self.url, create=False)
            return self._store

    def _close(self, store: Store) -> None:
        """Forget a store that cannot be read, unless another thread has done so."""
        with self._lock:
            if self._store is not store:
                return
            store.close()
            self._store = None
            self._followers.clear()
            self._curves.clear()
            self._lives.clear()
            self._summaries = Summaries()
        with self._remembering:
            self._drawn.clear()


_sources: dict[str, Source] = {}
_opening = threading.Lock()


def source_of(url: str) -> Source:
    """The one source that a server has of a database, whatever thread asks."""
    with _opening:
        return _sources.setdefault(url, Source(url))


def _family(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, tuple) and key else key
