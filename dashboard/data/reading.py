"""`Reading`: a study as it stands, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from dashboard.data.designs import Specs
from nas.search.objectives import OBJECTIVES
from nas.store import Ledger, StudyRecord
from nas.views.certainty import Chance

MOST_OFFERED = 300  # trials in a list; any other is typed by its number


def trial_columns() -> list[str]:
    """The columns of `Reading.trials`, its index first."""
    costs = [name for name in OBJECTIVES if name != "bits_per_byte"]
    return [
        *("trial", "design", "method", "status", "rung", "seeds", "frontier", "infeasible"),
        *("bits_per_byte", "noise", "p_frontier", "vs_cheaper", "bits_per_byte_se", *costs),
        *("flops_spent", "seconds", "source", "error"),
    ]


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
    specs: a trial's design by its number, as `FFNSpec.to_dict` has it.
    """

    study: StudyRecord
    trials: pd.DataFrame
    evaluations: pd.DataFrame
    ledger: Ledger
    bounds: Mapping[str, float]
    chances: Mapping[int, Chance]
    stamp: tuple[object, ...]
    specs: Specs

    @cached_property
    def knobs(self) -> pd.DataFrame:
        """See the class; made when it is first asked for."""
        return self.specs.knobs()

    @cached_property
    def running(self) -> pd.DataFrame:
        """The evaluations that are under way."""
        return self.evaluations[self.evaluations["status"] == "running"]

    @cached_property
    def waiting(self) -> int:
        """Evaluations that were stopped and can be taken up again."""
        return int((self.evaluations["status"] == "stopped").sum())

    def some(self, ids: Iterable[int]) -> pd.DataFrame:
        """These evaluations, those that are there, by id."""
        index, wanted = self.evaluations.index.to_numpy(), np.array(sorted(ids), dtype=np.int64)
        at = np.searchsorted(index, wanted)
        there = at < len(index)
        there[there] = index[at[there]] == wanted[there]
        return self.evaluations.iloc[at[there]]

    def of_trial(self, number: int) -> pd.DataFrame:
        """The trial's evaluations in the order in which they began."""
        return self.evaluations[self.evaluations["trial"] == number]

    @cached_property
    def knob_values(self) -> dict[str, int]:
        """How many values each knob has."""
        return {name: int(self.knobs[name].nunique()) for name in self.knobs.columns}

    @cached_property
    def offered(self) -> dict[int, str]:
        """The trials that a list offers, as it names them: the front, the best, the newest."""
        bits = self.trials["bits_per_byte"].dropna().sort_values(kind="stable").index
        best, newest = bits[:MOST_OFFERED].tolist(), self.trials.index[::-1][:MOST_OFFERED].tolist()
        numbers = list(dict.fromkeys([*self.front, *best, *newest]))[:MOST_OFFERED]
        return dict(zip(numbers, self.labels(numbers), strict=True))

    def labels(self, numbers: Sequence[int]) -> list[str]:
        """Trials for people: number and design."""
        designs = self.trials["design"].reindex(list(numbers))
        return [f"#{n}  {design}" for n, design in zip(numbers, designs, strict=True)]

    @cached_property
    def front(self) -> list[int]:
        """The frontier's trials, by their second objective (the first of one)."""
        study = self.study
        axis = study.objectives[min(1, len(study.objectives) - 1)]
        kept = self.trials.loc[self.trials["frontier"], axis]
        return [int(number) for number in kept.sort_values().index]
