"""Table rows to records, and an evaluation's ending to its columns.

A row that makes no sense (changed by hand, cut off, of another version) is a `BrokenRow`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from functools import cache
from typing import Any

from nas.store.facts import Facts
from nas.store.models import CurvePointRow
from nas.store.records import (
    EvaluationRecord,
    StudyRecord,
    StudyState,
    TrialMeasures,
    TrialRecord,
)
from nas.store.windows import packed
from search_space.contract import EvalResult, LogLine, Progress, Status
from search_space.log_text import MOST_STORED, log_text
from search_space.spec import FFNSpec

# The fields of an ending that its row has under the same names.
MEASURES = [
    f.name
    for f in fields(EvalResult)
    if f.name not in ("evaluation", "status", "attempt", "windows", "stats")
]
POINT = ("step", "steps", "flops", "loss", "seconds")  # the same of a point of a curve
LINE = ("attempt", "number", "at", "level", "text")  # the same of a line of a log
MALFORMED = (ValueError, TypeError, KeyError, AttributeError)  # what a row of nonsense raises
_NUMBERS = {int, float}


class BrokenRow(ValueError):
    """What is wrong with a row."""


def study_record(row: Any) -> StudyRecord:
    """The study, detached."""
    _expect(row, dict, "config", "facts")
    _expect(row, list, "objectives")
    read = {"state": StudyState(row.state), "facts": Facts.from_dict(row.facts)}
    return StudyRecord(**_named(row, StudyRecord) | read)


def trial_record(row: Any, result: EvalResult | None) -> TrialRecord:
    """The trial, detached.

    row: has the columns of a trial.
    result: of the evaluation that it names.
    """
    _expect(row, dict, "spec", "params", "cost")
    expect_numbers("cost", row.cost.values())
    _expect_measures(row)
    read = {"spec": FFNSpec.from_dict(row.spec), "status": Status(row.status), "result": result}
    return TrialRecord(**_named(row, TrialRecord, but="result") | read)


def trial_measures(row: Any) -> TrialMeasures:
    """What comparisons of trials need, from a row that has these columns."""
    _expect(row, dict, "cost")
    expect_numbers("cost", row.cost.values())
    _expect_measures(row)
    return TrialMeasures(**_named(row, TrialMeasures) | {"status": Status(row.status)})


def evaluation_record(row: Any) -> EvaluationRecord:
    """The evaluation, detached, from a row that has its columns, `trial_id`, `trial` and `seed`."""
    _expect_measures(row)
    return EvaluationRecord(**_named(row, EvaluationRecord) | {"status": Status(row.status)})


def eval_result(row: Any, stats: bool) -> EvalResult:
    """How an evaluation ended, but for its windows, from its columns.

    stats: whether the row has them.
    """
    _expect_measures(row)
    _expect(row, list, "activity")
    expect_numbers("activity", row.activity)
    if stats:
        _expect(row, dict, "stats")
    return EvalResult(
        evaluation=row.id,
        status=Status(row.status),
        attempt=row.attempt,
        stats=row.stats if stats else {},
        **{name: getattr(row, name) for name in MEASURES},
    )


def result_values(result: EvalResult) -> dict[str, Any]:
    """The columns of an ending."""
    values = {name: getattr(result, name) for name in MEASURES}
    return values | {"stats": result.stats, "windows": packed(result.windows)}


def progress(row: CurvePointRow) -> Progress:
    """One point of a curve."""
    return Progress(evaluation=row.evaluation_id, **{name: getattr(row, name) for name in POINT})


def point_values(point: Progress) -> dict[str, Any]:
    """The columns of a point of a curve."""
    return {"evaluation_id": point.evaluation} | {name: getattr(point, name) for name in POINT}


def log_line(row: Any) -> LogLine:
    """One line, from its columns."""
    named = {name: getattr(row, name) for name in LINE}
    return LogLine(evaluation=row.evaluation_id, **named)


def line_values(line: LogLine) -> dict[str, Any]:
    """The columns of a line; no database is given a character that it does not take."""
    values = {name: getattr(line, name) for name in LINE}
    text = {"text": log_text(line.text, MOST_STORED)}
    return {"evaluation_id": line.evaluation} | values | text


@cache
def field_names(record: type) -> tuple[str, ...]:
    """Of a record; its row has most of them as columns."""
    return tuple(f.name for f in fields(record))


def _named(row: Any, record: type, but: str = "") -> dict[str, Any]:
    """What a row has under the names of a record's fields."""
    return {name: getattr(row, name) for name in field_names(record) if name != but}


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
            expect_numbers(name, (value,))


def expect_numbers(name: str, values: Collection[object]) -> None:
    """Raise BrokenRow unless all of a column's values are numbers."""
    if _NUMBERS.issuperset(map(type, values)):
        return
    wrong = next(value for value in values if type(value) not in _NUMBERS)
    raise BrokenRow(f"its {name} holds {wrong!r:.60}, not a number")
