"""Rows of studies and trials read in bulk: columns, not objects; a broken row is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.orm import Session

from nas.store.errors import BrokenRecord
from nas.store.models import ResultRow, StudyRow, TrialRow
from nas.store.records import StudyRecord, TrialMeasures, TrialRecord
from nas.store.rows import MALFORMED, MEASURES, study_record, trial_measures, trial_record

T = TypeVar("T")
WAY_OUT = "restore the database from a copy, or launch the study again under a new name"
_TRIAL = list(TrialRow.__table__.columns)
_MEASURED = (
    TrialRow.id,
    TrialRow.number,
    TrialRow.study_id,
    TrialRow.status,
    TrialRow.cost,
    ResultRow.bits_per_byte,
    ResultRow.active_flops,
)


def read_trials(
    session: Session, *where: ColumnElement[bool], stats: bool = True
) -> list[TrialRecord]:
    """The trials that fulfil `where`, by number; `stats` are {} when they are not asked for."""
    measures = [getattr(ResultRow, name) for name in MEASURES if stats or name != "stats"]
    query = _joined(*_TRIAL, ResultRow.trial_id, *measures).where(*where)

    def record(row: Row[Any]) -> TrialRecord:
        return trial_record(row, None if row.trial_id is None else row, stats=stats)

    return _decoded(session, query, record)


def read_measures(session: Session, study_id: int) -> list[TrialMeasures]:
    """What comparisons need of the study's trials, by number."""
    query = _joined(*_MEASURED).where(TrialRow.study_id == study_id)
    return _decoded(session, query, trial_measures)


def read_studies(session: Session, query: Select[StudyRow]) -> list[StudyRecord]:
    """The studies that `query` finds, in its order."""
    try:
        return [study_record(row) for row in session.scalars(query)]
    except MALFORMED as error:
        broken = BrokenRecord(f"a study cannot be read: {error}; {WAY_OUT}")
    # One by one, to say which it is.
    for id, name in session.execute(select(StudyRow.id, StudyRow.name)).all():
        try:
            study_record(session.scalars(select(StudyRow).where(StudyRow.id == id)).one())
        except MALFORMED as error:
            broken = BrokenRecord(f"study {name!r} cannot be read: {error}; {WAY_OUT}")
    raise broken


def _joined(*columns: Any) -> Select[Any]:
    joined = TrialRow.__table__.outerjoin(ResultRow, ResultRow.trial_id == TrialRow.id)
    return select(*columns).select_from(joined).order_by(TrialRow.number)


def _decoded(session: Session, query: Select[Any], record: Callable[[Row[Any]], T]) -> list[T]:
    try:
        return [record(row) for row in session.execute(query)]
    except MALFORMED as error:
        broken = BrokenRecord(f"a trial cannot be read: {error}; {WAY_OUT}")
    # A malformed JSON text fails where rows are fetched, without a number: one by one then.
    keys = query.with_only_columns(TrialRow.id, TrialRow.number, TrialRow.study_id)
    for id, number, study_id in session.execute(keys).all():
        try:
            record(session.execute(query.where(TrialRow.id == id)).one())
        except MALFORMED as error:
            name = session.scalar(select(StudyRow.name).where(StudyRow.id == study_id))
            text = f"trial {number} of study {name!r} cannot be read: {error}; {WAY_OUT}"
            broken = BrokenRecord(text)
            break
    raise broken
