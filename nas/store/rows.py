"""Table rows to records, and the ending of a trial to its row.

A row that makes no sense (changed by hand, cut off, of another version) is a `BrokenRow`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from nas.store.models import CurvePointRow, ResultRow
from nas.store.records import StudyRecord, StudyState, TrialMeasures, TrialRecord
from search_space.contract import EvalResult, Progress, Status
from search_space.spec import FFNSpec

MEASURES = [f.name for f in fields(EvalResult) if f.name not in ("trial", "status")]
MALFORMED = (ValueError, TypeError, KeyError, AttributeError)  # what a row of nonsense raises
_NUMBERS = {int, float}


class BrokenRow(ValueError):
    """What is wrong with a row."""


def study_record(row: Any) -> StudyRecord:
    """The study, detached."""
    _expect(row, dict, "config", "facts")
    _expect(row, list, "objectives")
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


def trial_record(row: Any, result: Any, *, stats: bool = True) -> TrialRecord:
    """The trial with its result, detached.

    row: has the columns of a trial.  result: those of a result, but for `stats` when it is
    false; None without one.
    """
    _expect(row, dict, "spec", "params", "cost")
    _expect_numbers("cost", row.cost.values())
    status = Status(row.status)
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
        result=None if result is None else _result(row.id, status, result, stats),
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def trial_measures(row: Any) -> TrialMeasures:
    """What comparisons of trials need, from a row that has these columns."""
    _expect(row, dict, "cost")
    _expect_numbers("cost", row.cost.values())
    _expect_measures(row)
    return TrialMeasures(
        row.number, Status(row.status), row.cost, row.bits_per_byte, row.active_flops
    )


def result_row(result: EvalResult) -> ResultRow:
    """The measures of an ending; its status belongs to the trial's row."""
    return ResultRow(trial_id=result.trial, **{name: getattr(result, name) for name in MEASURES})


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


def _result(trial_id: int, status: Status, row: Any, stats: bool) -> EvalResult:
    _expect_measures(row)
    _expect(row, list, "activity")
    _expect_numbers("activity", row.activity)
    measures = {name: getattr(row, name) for name in MEASURES if stats or name != "stats"}
    if stats:
        _expect(row, dict, "stats")
    return EvalResult(trial=trial_id, status=status, **measures)


def _expect(row: Any, kind: type, *names: str) -> None:
    for name in names:
        value = getattr(row, name)
        if not isinstance(value, kind):
            form = "a mapping" if kind is dict else "a list"
            raise BrokenRow(f"its {name} is {value!r:.60}, not {form}")


def _expect_measures(row: Any) -> None:
    for name in ("bits_per_byte", "active_flops"):
        value = getattr(row, name)
        if value is not None:
            _expect_numbers(name, (value,))


def _expect_numbers(name: str, values: Collection[object]) -> None:
    if _NUMBERS.issuperset(map(type, values)):
        return
    wrong = next(value for value in values if type(value) not in _NUMBERS)
    raise BrokenRow(f"its {name} holds {wrong!r:.60}, not a number")
