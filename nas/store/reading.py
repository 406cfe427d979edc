"""Rows of studies and trials read in bulk: columns, not objects; a broken row is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.orm import Session

from nas.store.errors import BrokenRecord
from nas.store.models import EvaluationRow, RunRow, StudyRow, TrialRow
from nas.store.records import EvaluationRecord, StudyRecord, TrialMeasures, TrialRecord
from nas.store.rows import (
    MALFORMED,
    MEASURES,
    eval_result,
    evaluation_record,
    study_record,
    trial_measures,
    trial_record,
    unpacked,
)
from search_space.contract import EvalResult

T = TypeVar("T")
WAY_OUT = "restore the database from a copy, or launch the study again under a new name"
_TRIAL = list(TrialRow.__table__.columns)
_RESULT = [
    EvaluationRow.status,
    EvaluationRow.attempt,
    *(getattr(EvaluationRow, n) for n in MEASURES),
]
_MEASURED = (
    TrialRow.id,
    TrialRow.number,
    TrialRow.study_id,
    TrialRow.status,
    TrialRow.cost,
    TrialRow.rung,
    TrialRow.seeds,
    TrialRow.bits_per_byte,
    TrialRow.active_flops,
)
_EVALUATION = (
    EvaluationRow.id,
    RunRow.trial_id,
    TrialRow.number.label("trial"),
    RunRow.seed,
    EvaluationRow.rung,
    EvaluationRow.attempt,
    EvaluationRow.losses,
    EvaluationRow.owner,
    EvaluationRow.status,
    EvaluationRow.until_flops,
    EvaluationRow.start_flops,
    EvaluationRow.reserved,
    EvaluationRow.flops,
    EvaluationRow.trunk_flops,
    EvaluationRow.bits_per_byte,
    EvaluationRow.bits_per_byte_se,
    EvaluationRow.active_flops,
    EvaluationRow.seconds,
    EvaluationRow.error,
    EvaluationRow.created_at,
    EvaluationRow.ended_at,
)


def read_trials(
    session: Session, *where: ColumnElement[bool], stats: bool = True
) -> list[TrialRecord]:
    """The trials that fulfil `where`, by number; `stats` are {} when they are not asked for."""
    columns = [*_RESULT, EvaluationRow.stats] if stats else _RESULT
    # Both tables have columns of these names.
    named = [column.label(f"result_{column.key}") for column in (EvaluationRow.id, *columns)]
    joined = TrialRow.__table__.outerjoin(
        EvaluationRow.__table__, EvaluationRow.id == TrialRow.evaluation_id
    )
    query = select(*_TRIAL, *named).select_from(joined).where(*where).order_by(TrialRow.number)

    def record(row: Row[Any]) -> TrialRecord:
        ended = None if row.result_id is None else eval_result(_Result(row), stats)
        return trial_record(row, ended)

    return _decoded(session, query, record)


def read_measures(session: Session, study_id: int) -> list[TrialMeasures]:
    """What comparisons need of the study's trials, by number."""
    query = select(*_MEASURED).where(TrialRow.study_id == study_id).order_by(TrialRow.number)
    return _decoded(session, query, trial_measures)


def read_evaluations(session: Session, *where: ColumnElement[bool]) -> list[EvaluationRecord]:
    """The evaluations that fulfil `where`, in the order in which they began."""
    query = (
        select(*_EVALUATION)
        .join(RunRow, RunRow.id == EvaluationRow.run_id)
        .join(TrialRow, TrialRow.id == RunRow.trial_id)
        .where(*where)
        .order_by(EvaluationRow.id)
    )
    return [evaluation_record(row) for row in session.execute(query)]


def read_result(session: Session, evaluation_id: int) -> EvalResult | None:
    """How an evaluation ended, with its windows; None for an unknown one."""
    row = session.get(EvaluationRow, evaluation_id)
    if row is None:
        return None
    return replace(eval_result(row, stats=True), windows=unpacked(row.windows))


class _Result:
    """A joined row seen as its evaluation's."""

    def __init__(self, row: Row[Any]) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, f"result_{name}")


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
