"""`Columns`: the store's part that reads many rows as columns: no object a row, no JSON read.

A page that shows a study of a hundred thousand evaluations has no time to make a record of each.
What is wrong in a row is found by whoever needs its value; `nas.store.reading` then says which row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Text,
    case,
    cast,
    func,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.orm import Session

from nas.store.conversion import field_names
from nas.store.database import Database
from nas.store.models import CURVE_POINT, EVALUATION, RUN, STUDY, TRIAL
from nas.store.records import EvaluationRecord
from search_space.contract import Status

Table = dict[str, Sequence[Any]]  # column -> values, all of one length
ASKED_AT_ONCE = 500  # ids in one statement: SQLite takes 32,766, and a plan for each is made anew
_TIMES = ("created_at", "ended_at")
_TRIAL = (
    *("number", "spec", "source", "cost", "status", "rung", "seeds", "bits_per_byte"),
    *("active_flops", "flops", "evaluation_id"),
)
_FINISHED = ("study_id", "number", "cost", "bits_per_byte", "active_flops", "seeds")
_JSON = ("spec", "cost")
# What tells one history of a study from another: no two have the same seconds.
_SUMMED = {
    EVALUATION: (
        *("id", "rung", "attempt", "losses", "status", "start_flops", "reserved", "flops"),
        *("bits_per_byte", "bits_per_byte_se", "seconds", "error", "ended_at"),
    ),
    TRIAL: (
        *("number", "spec", "source", "status", "rung", "seeds", "bits_per_byte"),
        *("active_flops", "flops", "evaluation_id"),
    ),
}


class Columns(Database):
    """Read trials, evaluations and curves as columns."""

    def trial_columns(self, study_id: int, numbers: Collection[int] | None = None) -> Table:
        """The study's trials by number; of `numbers`, only these.

        Columns: number, spec and cost (JSON as it is stored), source, status, rung, seeds,
        bits_per_byte, active_flops, flops, evaluation_id: as a trial's row has them.
        """
        query = select(*(_plain(TRIAL.c[name]) for name in _TRIAL))
        query = query.where(TRIAL.c.study_id == study_id)
        if numbers is None:
            return self._columns([query.order_by(TRIAL.c.number)], _TRIAL)
        parts = _parts(sorted(numbers))
        return self._columns([query.where(TRIAL.c.number.in_(part)) for part in parts], _TRIAL)

    def evaluation_columns(
        self, study_id: int, ids: Collection[int] | None = None, *, since: int = 0
    ) -> Table:
        """The study's evaluations in the order in which they began.

        ids: only these and those with ids from `since` on; as `some_evaluations`.
        Columns: the fields of `EvaluationRecord`; times are texts of ISO 8601 in UTC, or None.
        """
        query, names = _evaluations(self._engine.dialect.name), field_names(EvaluationRecord)
        if ids is None:
            # Sorted here, where the driver's rows lie: SQLite would copy each into a tree first.
            whole = query.where(EVALUATION.c.study_id == study_id).order_by(None)
            return self._columns([whole], names, sort=itemgetter(0))
        # As a sum, so that SQLite goes by the ids: by the study it would walk over all of it.
        query = query.where(EVALUATION.c.study_id + 0 == study_id)
        parts = _parts(sorted(id for id in ids if id < since))
        queries = [query.where(EVALUATION.c.id.in_(part)) for part in parts]
        return self._columns([*queries, query.where(EVALUATION.c.id >= since)], names)

    def sums(self, study_id: int) -> dict[str, dict[str, float]]:
        """What columns of the study's evaluations and of its trials add up to, by table.

        Columns that were kept elsewhere are this study's if theirs add up to the same. Of a text
        its length counts, of a time whether it is there. `rows` is how many there are.
        """

        def read(session: Session) -> dict[str, dict[str, float]]:
            found = {}
            for table, names in _SUMMED.items():
                amounts = [func.sum(_amount(table.c[name])).label(name) for name in names]
                query = select(func.count().label("rows"), *amounts)
                row = session.execute(query.where(table.c.study_id == study_id)).one()
                found[table.name] = {name: float(row._mapping[name] or 0) for name in row._fields}
            return found

        return self._read(read)

    def finished_columns(self, study_ids: Collection[int]) -> Table:
        """Of each of these studies, the trials that were measured at its top rung, by number.

        Columns: study_id, number, cost (JSON as it is stored), bits_per_byte, active_flops, seeds.
        """
        query = select(*(_plain(TRIAL.c[name]) for name in _FINISHED))
        query = query.where(TRIAL.c.status == Status.FINISHED.value)
        parts = [TRIAL.c.study_id.in_(part) for part in _parts(sorted(study_ids))]
        order = (TRIAL.c.study_id, TRIAL.c.number)
        return self._columns([query.where(part).order_by(*order) for part in parts], _FINISHED)

    def trial_counts(self, study_ids: Collection[int]) -> dict[int, dict[str, int]]:
        """By study, how many of its trials have each status."""
        found: dict[int, dict[str, int]] = {id: {} for id in study_ids}
        query = select(TRIAL.c.study_id, TRIAL.c.status, func.count()).where(
            TRIAL.c.study_id.in_(list(study_ids))
        )
        query = query.group_by(TRIAL.c.study_id, TRIAL.c.status)
        for id, status, count in self._read(lambda session: session.execute(query).all()):
            found[id][status] = count
        return found

    def spent_flops(self) -> dict[int, tuple[float, int]]:
        """By study, the training FLOPs that its ended evaluations spent, and its number of trials.

        One of the two grows whenever a trial begins or an evaluation ends.
        """
        query = select(STUDY.c.id, STUDY.c.spent_flops, STUDY.c.n_trials)
        rows = self._read(lambda session: session.execute(query).all())
        return {row.id: (row.spent_flops, row.n_trials) for row in rows}

    def curve_columns(self, after: Mapping[int, int], most: int) -> dict[int, Table]:
        """Points of the curves of these evaluations, by step.

        after: evaluation -> the step after which its points are wanted; -1 for all.
        most: points of one curve, at least 2: of more, some are left out, evenly; the first and
            the last stay.
        Columns: step, steps, flops, loss, seconds.
        """
        names = ("step", "steps", "flops", "loss", "seconds")

        def read(session: Session) -> dict[int, Table]:
            found = {}
            for id, step in after.items():
                mine = CURVE_POINT.c.evaluation_id == id, CURVE_POINT.c.step > step
                count = session.scalar(select(func.count()).select_from(CURVE_POINT).where(*mine))
                query = _thinned(names, mine, int(count or 0), most)
                found[id] = _table(session.execute(query).all(), names)
            return found

        return self._read(read)

    def _columns(
        self,
        queries: Sequence[Select[Any]],
        names: Sequence[str],
        sort: Callable[[Any], Any] | None = None,
    ) -> Table:
        def read(session: Session) -> Table:
            rows: list[Any] = []
            for query in queries:
                # The driver's own rows: SQLAlchemy's cost as much again, and nothing is converted.
                cursor = session.connection().execute(query).cursor
                assert cursor is not None
                rows += cursor.fetchall()
            if sort is not None:
                rows.sort(key=sort)
            return _table(rows, names)

        return self._read(read)


@cache
def _evaluations(dialect: str) -> Select[Any]:
    """Made once: SQLAlchemy takes longer to make it than SQLite to answer it."""
    named: dict[str, ColumnElement[Any]] = dict(EVALUATION.c)
    named |= {"trial_id": RUN.c.trial_id, "trial": TRIAL.c.number, "seed": RUN.c.seed}
    named |= {name: _time(EVALUATION.c[name], dialect) for name in _TIMES}
    joined = EVALUATION.join(RUN, RUN.c.id == EVALUATION.c.run_id)
    joined = joined.join(TRIAL, TRIAL.c.id == RUN.c.trial_id)
    query = select(*(named[name] for name in field_names(EvaluationRecord)))
    return query.select_from(joined).order_by(EVALUATION.c.id)


def _time(column: ColumnElement[Any], dialect: str) -> ColumnElement[Any]:
    """A time as a text, in UTC."""
    if dialect == "sqlite":
        return type_coerce(column, String)
    return func.to_char(func.timezone("UTC", column), 'YYYY-MM-DD"T"HH24:MI:SS.US')


def _plain(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A JSON column as its text; any other as it is."""
    return cast(column, Text) if column.key in _JSON else column


def _amount(column: ColumnElement[Any]) -> ColumnElement[Any]:
    if column.key in _TIMES:
        return case((column.is_(None), 0), else_=1)
    text = column.key in _JSON or isinstance(column.type, String)
    return func.length(_plain(column)) if text else column


def _parts(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[at : at + ASKED_AT_ONCE] for at in range(0, len(ids), ASKED_AT_ONCE)]


def _table(rows: Sequence[Any], names: Sequence[str]) -> Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return dict(zip(names, columns, strict=True))


def _thinned(
    names: Sequence[str], mine: tuple[ColumnElement[bool], ...], count: int, most: int
) -> Select[Any]:
    """The points that fulfil `mine`, `count` of them, or `most` spread evenly over them."""
    columns = [CURVE_POINT.c[name] for name in names]
    if count <= most:
        return select(*columns).where(*mine).order_by(CURVE_POINT.c.step)
    place = func.row_number().over(order_by=CURVE_POINT.c.step).label("place")
    inner = select(*columns, place).where(*mine).subquery()
    # The k-th kept point is the first whose share of the way reaches k: whole numbers throughout.
    at = inner.c.place - 1
    share = at * (most - 1) // (count - 1)
    before = case((at == 0, -1), else_=(at - 1) * (most - 1) // (count - 1))
    kept = or_(share != before, at == count - 1)
    return select(*(inner.c[name] for name in names)).where(kept).order_by(inner.c.step)
