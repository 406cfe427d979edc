"""`Reading`: a study as it stands, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import pandas as pd

from dashboard.data.snapshot import Snapshot, trial_frame
from nas.store import EvaluationRecord, Ledger, StudyRecord
from nas.views.certainty import Chance

EVALUATION_COLUMNS = tuple(each.name for each in fields(EvaluationRecord))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One reading of a study. Its frames are shared by all pages of a server: never change one.

    trials: a row a trial, by number (the index, named `trial`). Columns: design (its label),
        method, status, rung (Int64), seeds, source, one an objective of `nas.search.objectives`
        (bits_per_byte is the mean of the seeds at the highest rung), bits_per_byte_se, noise,
        flops_spent, seconds, error, infeasible (in words, "" where no bound is broken), frontier
        (bool), p_frontier, vs_cheaper (in words).
    evaluations: a row an evaluation, by id (the index, named `id`), in the order in which they
        began. Columns: the fields of `EvaluationRecord`; status is its value.
    knobs: a row a trial, by number. Columns: `method`, the fields of the design and of its
        selection, flat; missing where a method has no such knob.
    ledger: the study's account.
    bounds: upper bounds by objective.
    chances: by trial, of those on the frontier and near it.
    stamp: equal for readings that differ in the curves of running evaluations alone.
    """

    study: StudyRecord
    trials: pd.DataFrame
    evaluations: pd.DataFrame
    ledger: Ledger
    bounds: Mapping[str, float]
    chances: Mapping[int, Chance]
    stamp: tuple[object, ...]
    specs: Mapping[int, Mapping[str, Any]]

    @cached_property
    def knobs(self) -> pd.DataFrame:
        """See the class; made when it is first asked for."""
        rows = {number: _flat(spec) for number, spec in self.specs.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")

    @property
    def running(self) -> pd.DataFrame:
        """The evaluations that are under way."""
        return self.evaluations[self.evaluations["status"] == "running"]

    def of_trial(self, number: int) -> pd.DataFrame:
        """The trial's evaluations in the order in which they began."""
        return self.evaluations[self.evaluations["trial"] == number]

    @property
    def front(self) -> list[int]:
        """The frontier's trials, by their second objective (the first of one)."""
        study = self.study
        axis = study.objectives[min(1, len(study.objectives) - 1)]
        kept = self.trials[self.trials["frontier"]]
        return [int(number) for number in kept.sort_values(axis).index]


def reading(snapshot: Snapshot) -> Reading:
    """The same in columns."""
    trials = trial_frame(snapshot).set_index("trial")
    rows = [
        {name: getattr(each, name) for name in EVALUATION_COLUMNS} | {"status": each.status.value}
        for each in snapshot.evaluations.values()
    ]
    evaluations = pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS)).set_index("id")
    return Reading(
        study=snapshot.study,
        trials=trials,
        evaluations=evaluations,
        ledger=snapshot.ledger,
        bounds=snapshot.bounds,
        chances=snapshot.chances,
        stamp=snapshot.stamp,
        specs={trial.number: trial.spec.to_dict() for trial in snapshot.trials},
    )


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in spec.items() if name != "selection"}
    return own | dict(spec["selection"])
