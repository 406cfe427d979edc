"""Trials and evaluations as plain data: the columns of tables, data frames, CSV and --json.

What is measured of a trial, or priced, has the columns that `nas.search.objectives` lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.search.bounds import excess, words
from nas.search.objectives import OBJECTIVES
from nas.search.pareto import NO_BOUNDS
from nas.store.records import EvaluationRecord, TrialRecord

if TYPE_CHECKING:
    from pandas import DataFrame


RUN_COLUMNS = (
    *("trial", "seed", "rung", "until_flops", "status", "attempt"),
    *("bits_per_byte", "flops", "seconds", "error"),
)


def flat_row(trial: TrialRecord, bounds: Mapping[str, float] = NO_BOUNDS) -> dict[str, Any]:
    """One trial as plain values.

    trial: its record.
    bounds: the study's upper bounds by objective (`nas.search.bounds.limits`).

    `bits_per_byte` is the mean of its `seeds` at `rung`, the highest that was measured; the figures
    of two rungs are not comparable. `bits_per_byte_se` is the first run's, over validation windows.
    `flops` are spent on the trial in all. `seconds` and `error` are of its last evaluation.
    `infeasible` says in words which bounds it breaks; "" for a feasible trial.
    """
    result = trial.result
    row: dict[str, Any] = {
        "number": trial.number,
        "status": trial.status.value,
        "method": trial.spec.method,
        "design": trial.spec.label,
        "source": trial.source,
        "rung": trial.rung,
        "seeds": trial.seeds,
        "bits_per_byte_se": result.bits_per_byte_se if result else None,
        "flops": trial.flops,
        "seconds": result.seconds if result else None,
        "error": result.error if result else "",
        "infeasible": words(excess(trial, bounds)),
    }
    return row | {name: objective.value(trial) for name, objective in OBJECTIVES.items()}


def trial_row(trial: TrialRecord, bounds: Mapping[str, float] = NO_BOUNDS) -> dict[str, Any]:
    """`flat_row`, its `spec`, and its `violations`: `nas.search.bounds.excess` of the bounds."""
    more = {"spec": trial.spec.to_dict(), "violations": excess(trial, bounds)}
    return flat_row(trial, bounds) | more


def run_row(evaluation: EvaluationRecord) -> dict[str, Any]:
    """One evaluation as plain values.

    until_flops: the rung's level.
    attempt: times that it was taken up.
    flops: training FLOPs charged for it.
    seconds: of its last attempt.
    """
    row = {name: getattr(evaluation, name) for name in RUN_COLUMNS}
    return row | {"status": evaluation.status.value}


def data_frame(trials: Sequence[TrialRecord], bounds: Mapping[str, float] = NO_BOUNDS) -> DataFrame:
    """`trial_row` of each trial as a pandas data frame."""
    import pandas as pd

    return pd.DataFrame([trial_row(trial, bounds) for trial in trials])
