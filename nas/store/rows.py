"""Table rows to records, and the ending of a trial to its row."""

from __future__ import annotations

from dataclasses import fields

from nas.store.models import CurvePointRow, ResultRow, StudyRow, TrialRow
from nas.store.records import StudyRecord, StudyState, TrialRecord
from search_space.contract import EvalResult, Progress, Status
from search_space.spec import FFNSpec

_MEASURES = [f.name for f in fields(EvalResult) if f.name not in ("trial", "status")]


def study_record(row: StudyRow) -> StudyRecord:
    """The study, detached."""
    return StudyRecord(
        id=row.id,
        uid=row.uid,
        name=row.name,
        config=row.config,
        seed=row.seed,
        budget_flops=row.budget_flops,
        objectives=row.objectives,
        state=StudyState(row.state),
        facts=row.facts,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def trial_record(row: TrialRow) -> TrialRecord:
    """The trial with its result, detached."""
    status = Status(row.status)
    result = None
    if row.result is not None:
        measures = {name: getattr(row.result, name) for name in _MEASURES}
        result = EvalResult(trial=row.id, status=status, **measures)
    return TrialRecord(
        id=row.id,
        study_id=row.study_id,
        number=row.number,
        spec=FFNSpec.from_dict(row.spec),
        key=row.key,
        params=row.params,
        seed=row.seed,
        source=row.source,
        train_flops=row.train_flops,
        cost=row.cost,
        status=status,
        result=result,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def result_row(result: EvalResult) -> ResultRow:
    """The measures of an ending; its status belongs to the trial's row."""
    return ResultRow(trial_id=result.trial, **{name: getattr(result, name) for name in _MEASURES})


def progress(row: CurvePointRow) -> Progress:
    """One point of a curve."""
    return Progress(
        trial=row.trial_id,
        step=row.step,
        steps=row.steps,
        flops=row.flops,
        loss=row.loss,
        seconds=row.seconds,
    )
