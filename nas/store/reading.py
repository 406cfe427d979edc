"""Rows of studies, trials and evaluations read: columns, not objects; a broken row is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, select
from sqlalchemy.orm import Session

from nas.store.conversion import (
    MALFORMED,
    MEASURES,
    eval_result,
    evaluation_record,
    expect_numbers,
    field_names,
    study_record,
    trial_measures,
    trial_record,
)
from nas.store.errors import BrokenRecord
from nas.store.models import EVALUATION, RUN, TRIAL, StudyRow
from nas.store.records import (
    EvaluationRecord,
    MeasuredRun,
    StudyRecord,
    TrialMeasures,
    TrialRecord,
)
from nas.store.windows import unpacked
from search_space.contract import EvalResult, Status
from search_space.errors import BrokenPlugIn, UnknownMethod

T = TypeVar("T")
Reader = Session | Connection
WAY_OUT = "restore the database from a copy, or launch the study again under a new name"
PLUG_IN = "install the package that the method came with, or register it before you read"
_TRIAL = list(TRIAL.c)
_RESULT = [EVALUATION.c[name] for name in ("status", "attempt", *MEASURES)]
_MEASURED = [TRIAL.c[name] for name in ("id", "study_id", *field_names(TrialMeasures))]
_OF_RUN = {"trial_id": RUN.c.trial_id, "trial": TRIAL.c.number.label("trial"), "seed": RUN.c.seed}
_COLUMNS = dict(EVALUATION.c) | _OF_RUN
_EVALUATION = [_COLUMNS[name] for name in field_names(EvaluationRecord)]
_PAIRED = (
    TRIAL.c.id,
    TRIAL.c.number,
    TRIAL.c.study_id,
    RUN.c.seed,
    EVALUATION.c.until_flops,
    EVALUATION.c.bits_per_byte,
    EVALUATION.c.bits_per_byte_se,
)
_COPYING = EVALUATION.c.stats["copying"].as_float().label("copying")


def _trials_query(stats: bool) -> Select[Any]:
    columns = [*_RESULT, EVALUATION.c.stats] if stats else _RESULT
    # Both tables have columns of these names.
    named = [column.label(f"result_{column.key}") for column in (EVALUATION.c.id, *columns)]
    joined = TRIAL.outerjoin(EVALUATION, EVALUATION.c.id == TRIAL.c.evaluation_id)
    return select(*_TRIAL, *named).select_from(joined).order_by(TRIAL.c.number)


# Made once: SQLAlchemy takes longer to make a statement of forty columns than SQLite to answer it.
_TRIALS = {stats: _trials_query(stats) for stats in (False, True)}
_ONE_TRIAL = _TRIALS[True].where(TRIAL.c.id == bindparam("id"))
_RUNS = EVALUATION.join(RUN, RUN.c.id == EVALUATION.c.run_id)
_RUNS = _RUNS.join(TRIAL, TRIAL.c.id == RUN.c.trial_id)
_EVALUATIONS = select(*_EVALUATION).select_from(_RUNS).order_by(EVALUATION.c.id)
_ONE_EVALUATION = _EVALUATIONS.where(EVALUATION.c.id == bindparam("id"))


def read_trials(
    session: Reader, *where: ColumnElement[bool], stats: bool = True
) -> list[TrialRecord]:
    """The trials that fulfil `where`, by number; `stats` are {} when they are not asked for."""
    return _decoded(session, _TRIALS[stats].where(*where), partial(_trial, stats=stats))


def read_trial(session: Reader, id: int) -> TrialRecord:
    """One trial that is there."""
    return _decoded(session, _ONE_TRIAL, partial(_trial, stats=True), {"id": id})[0]


def _trial(row: Row[Any], stats: bool) -> TrialRecord:
    ended = None if row.result_id is None else eval_result(_Result(row), stats)
    return trial_record(row, ended)


def read_measures(session: Reader, study_id: int) -> list[TrialMeasures]:
    """What comparisons need of the study's trials, by number."""
    query = select(*_MEASURED).where(TRIAL.c.study_id == study_id).order_by(TRIAL.c.number)
    return _decoded(session, query, trial_measures)


def read_evaluations(session: Reader, *where: ColumnElement[bool]) -> list[EvaluationRecord]:
    """The evaluations that fulfil `where`, in the order in which they began."""
    return _decoded(session, _EVALUATIONS.where(*where), evaluation_record)


def read_evaluation(session: Reader, id: int) -> EvaluationRecord:
    """One evaluation that is there."""
    return _decoded(session, _ONE_EVALUATION, evaluation_record, {"id": id})[0]


def read_result(session: Reader, evaluation_id: int) -> EvalResult | None:
    """How an evaluation ended, with its windows; None for an unknown one."""
    query = select(EVALUATION).select_from(_RUNS).where(EVALUATION.c.id == evaluation_id)
    return next(iter(_decoded(session, query, _result)), None)


def _result(row: Row[Any]) -> EvalResult:
    return replace(eval_result(row, stats=True), windows=unpacked(row.windows))


def read_runs(session: Reader, *where: ColumnElement[bool], windows: bool) -> list[MeasuredRun]:
    """The measured runs that fulfil `where`, by trial, seed and rung.

    windows: whether theirs are read, and whether they copy; else they are () and None.
    """
    columns = [*_PAIRED, EVALUATION.c.windows, _COPYING] if windows else _PAIRED
    done = EVALUATION.c.status == Status.FINISHED.value
    query = select(*columns).select_from(_RUNS).where(done, *where)
    return _decoded(
        session, query.order_by(TRIAL.c.number, RUN.c.seed, EVALUATION.c.rung), _measured_run
    )


def _measured_run(row: Row[Any]) -> MeasuredRun:
    expect_numbers("bits_per_byte", (row.bits_per_byte,))
    known = "windows" in row._fields
    kept, copying = (unpacked(row.windows), row.copying) if known else ((), None)
    figures = row.until_flops, row.bits_per_byte, row.bits_per_byte_se
    return MeasuredRun(row.number, row.seed, *figures, kept, copying)


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
        broken = _broken("a study", error)
    # One by one, to say which it is.
    for id, name in session.execute(select(StudyRow.id, StudyRow.name)).all():
        try:
            study_record(session.scalars(select(StudyRow).where(StudyRow.id == id)).one())
        except MALFORMED as error:
            broken = _broken(f"study {name!r}", error)
    raise broken


def _broken(what: str, error: Exception) -> BrokenRecord:
    if isinstance(error, BrokenPlugIn):  # its way out is the only one: the records are whole
        return BrokenRecord(f"{what} cannot be read: {error}")
    way_out = PLUG_IN if isinstance(error, UnknownMethod) else WAY_OUT
    return BrokenRecord(f"{what} cannot be read: {error}; {way_out}")


def _decoded(
    session: Reader,
    query: Select[Any],
    record: Callable[[Row[Any]], T],
    values: Mapping[str, Any] = MappingProxyType({}),
) -> list[T]:
    try:
        return [record(row) for row in session.execute(query, values)]
    except MALFORMED as error:
        broken = _broken("a trial", error)
    # A malformed JSON text fails where rows are fetched, without a number: one by one then.
    keys = query.with_only_columns(TRIAL.c.id, TRIAL.c.number, TRIAL.c.study_id)
    for id, number, study_id in session.execute(keys, values).all():
        try:
            for row in session.execute(query.where(TRIAL.c.id == id), values):
                record(row)
        except MALFORMED as error:
            name = session.scalar(select(StudyRow.name).where(StudyRow.id == study_id))
            broken = _broken(f"trial {number} of study {name!r}", error)
            break
    raise broken
