"""A writer outlasts a lost connection: every operation of the store is tried again for a while.

`lasting` marks the operations. Each is one transaction and a function of its arguments, so it can
be tried again whole. An answer may be lost after the server did what it was asked: an operation
that adds something takes `at`, one time for all its attempts, and finds by it what an earlier
attempt left.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from nas.process import interrupts
from nas.store.errors import StoreUnavailable

log = logging.getLogger(__name__)
RETRY_SECONDS = 60.0  # from the first failure until a writer gives up
STOP_SECONDS = 10.0  # the same once somebody asked to stop
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

# SQLite's primary result codes that may pass: BUSY, LOCKED, IOERR, FULL.
_SQLITE_PASSING = (5, 6, 10, 13)
CALLED = datetime.min.replace(tzinfo=UTC)  # stands for the time of a call, which `lasting` gives
P = ParamSpec("P")
T = TypeVar("T")


class StoreLost(StoreUnavailable):
    """The database did not answer, or refused to; the text says which and why."""


class Outage:
    """How long one database has been failing, and how long that is borne.

    where: the database for people.
    patient: whether operations are tried again at all; a reader says at once what is wrong.
    """

    def __init__(self, where: str, patient: bool) -> None:
        self.where, self.patient = where, patient
        self.began: float | None = None
        self._thread = threading.local()

    def hurried(self) -> bool:
        """Whether an attempt that takes long would break the time that is left."""
        return self.began is not None or interrupts.asked()

    @property
    def inside(self) -> bool:
        """Whether this thread is inside an operation, which alone decides about another attempt."""
        return bool(getattr(self._thread, "inside", False))

    def outlast(self, operation: Callable[[], T]) -> T:
        """The operation's answer; StoreLost when the database does not give one in time.

        A part of another operation is run once: where its reads succeed and its writes fail, the
        outage goes on.
        """
        if self.inside:
            return operation()
        self._thread.inside = True
        try:
            return self._outlast(operation)
        finally:
            self._thread.inside = False

    def _outlast(self, operation: Callable[[], T]) -> T:
        pause = FIRST_PAUSE
        while True:
            try:
                answer = operation()
            except DBAPIError as error:
                left = self._left(error)
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if self.began is not None:
                log.warning("the database %s answers again", self.where)
                self.began = None
            return answer

    def _left(self, error: DBAPIError) -> float:
        """Seconds that are left for further attempts; StoreLost when there are none."""
        reason = one_line(error)
        if not passing(error):
            raise StoreLost(f"the database {self.where} refused: {reason}") from error
        if not self.patient:
            raise StoreLost(f"the database {self.where} failed: {reason}") from error
        now = time.monotonic()
        if self.began is None:
            self.began = now
            log.warning(
                "the database %s failed (%s); trying again for %.0f s",
                self.where,
                reason,
                RETRY_SECONDS,
            )
        seconds = STOP_SECONDS if interrupts.asked() else RETRY_SECONDS
        left = self.began + seconds - now
        if left <= 0:
            raise StoreLost(
                f"the database {self.where} has failed for {now - self.began:.0f} s: {reason}"
            ) from error
        return left


def lasting(method: Callable[P, T]) -> Callable[P, T]:
    """Mark a method of `Database` as one operation that outlasts an outage."""
    dated = "at" in inspect.signature(method).parameters

    @wraps(method)
    def outlasting(*arguments: P.args, **named: P.kwargs) -> T:
        if dated:
            named.setdefault("at", now())
        outage: Outage = arguments[0].outage  # type: ignore[attr-defined]
        return outage.outlast(partial(method, *arguments, **named))

    return outlasting


def passing(error: DBAPIError) -> bool:
    """Whether the same statement may succeed later: the failure is the database's, not ours."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_PASSING
    return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))


def one_line(error: DBAPIError) -> str:
    """The driver's own words, without SQL."""
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


def now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)
