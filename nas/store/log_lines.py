"""`LogLines`: the store's part that keeps what workers said during evaluations.

Lines are written in the transactions that there are anyway: `keep_lines` is part of one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from nas.store.adding import add_new
from nas.store.conversion import MALFORMED, line_values, log_line
from nas.store.database import Database
from nas.store.errors import BrokenRecord
from nas.store.models import LOG_LINE
from nas.store.records import EvaluationLog
from search_space.contract import LogLine

_L = LOG_LINE.c


class LogLines(Database):
    """Read the lines of evaluations."""

    def log_lines(self, evaluation_ids: Collection[int], most: int) -> dict[int, EvaluationLog]:
        """The newest lines of each of these evaluations, at most `most` of one.

        Raises BrokenRecord where one makes no sense.
        """
        return self._read(lambda session: {id: _log(session, id, most) for id in evaluation_ids})


def _log(session: Session, id: int, most: int) -> EvaluationLog:
    mine = _L.evaluation_id == id
    count = session.scalar(select(func.count()).select_from(LOG_LINE).where(mine)) or 0
    newest = select(LOG_LINE).where(mine).order_by(_L.attempt.desc(), _L.number.desc())
    try:
        lines = [log_line(row) for row in session.execute(newest.limit(most))]
    except MALFORMED as error:
        raise BrokenRecord(f"the log of evaluation {id} cannot be read: {error}") from None
    return EvaluationLog(lines=tuple(lines[::-1]), earlier=max(0, count - len(lines)))


def keep_lines(connection: Connection, lines: Iterable[LogLine]) -> None:
    """Write lines in a transaction that has made sure of their evaluations; one that is there
    already stays as it is."""
    add_new(connection, LOG_LINE, [line_values(line) for line in lines])
