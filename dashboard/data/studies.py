"""All studies of a database in a row each; a study that did not go on is not counted again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dashboard.data import columns
from dashboard.data.derived import broken, cost_columns, excess_columns, objective_columns
from dashboard.data.designs import decoded
from dashboard.data.reading import Reading
from nas.process.holder import words
from nas.search.bounds import limits
from nas.search.pareto import non_dominated
from nas.store import Store, StudyRecord, StudyState
from search_space.contract import FAILURES, Status
from search_space.errors import InputError

_KINDS: Mapping[str, columns.Kind] = {
    "study_id": "int",
    "number": "int",
    "bits_per_byte": "float",
    "active_flops": "float",
}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A study in a few numbers.

    spent: training FLOPs that ended evaluations spent.
    trials: how many have each status.
    best: the lowest bits per byte of a feasible design at the top rung; None before there is one.
    frontier: designs on it.
    driven: whether its driver has given a sign of life in time.
    """

    study: StudyRecord
    spent: float
    trials: Mapping[str, int] = field(default_factory=dict)
    best: float | None = None
    frontier: int = 0
    driven: bool = False

    @property
    def driver(self) -> str:
        """Who drives it, in words."""
        if not self.study.owner:
            return "nobody"
        who = words(self.study.owner)
        return who if self.driven else f"{who}, which gives no sign of life"

    @property
    def abandoned(self) -> bool:
        """Whether nobody drives it, and nobody noted that it ended."""
        return self.study.state is StudyState.RUNNING and not self.driven

    @property
    def state(self) -> str:
        """Where it stands."""
        return "running, undriven" if self.abandoned else self.study.state.value


class Summaries:
    """Keeps what was counted. Not safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Summary]] = {}

    def read(
        self, store: Store, in_hand: Callable[[StudyRecord], Reading | None] = lambda study: None
    ) -> list[Summary]:
        """All studies, the newest first.

        in_hand: a study in columns where somebody has it: it need not be counted then.
        """
        studies, spent = store.studies(), store.spent_flops()
        keys = {s.uid: (spent.get(s.id), s.deviation, s.budget_flops) for s in studies}
        stale = [s for s in studies if self._known.get(s.uid, (None,))[0] != keys[s.uid]]
        counted = {s.uid: _of_reading(r) for s in stale if (r := in_hand(s)) is not None}
        counted |= _counted(store, [s for s in stale if s.uid not in counted])
        found = []
        for study in studies:
            one = counted.get(study.uid) or self._known[study.uid][1]
            driven = study.owner != "" and store.lease_left(study.id) > 0
            found.append(
                Summary(
                    study=study,
                    spent=spent.get(study.id, (0.0, 0))[0],
                    trials=one.trials,
                    best=one.best,
                    frontier=one.frontier,
                    driven=driven,
                )
            )
        self._known = {each.study.uid: (keys[each.study.uid], each) for each in found}
        return found


def _of_reading(reading: Reading) -> Summary:
    """The study's numbers but for what it spent and who drives it."""
    trials = reading.trials
    done = (trials["status"] == Status.FINISHED.value) & (trials["infeasible"] == "")
    bits = trials.loc[done, "bits_per_byte"].dropna()
    return Summary(
        study=reading.study,
        spent=0.0,
        trials={str(k): int(v) for k, v in trials["status"].value_counts().items()},
        best=float(bits.min()) if len(bits) else None,
        frontier=int(trials["frontier"].sum()),
    )


def _counted(store: Store, studies: list[StudyRecord]) -> dict[str, Summary]:
    """By uid, these studies counted."""
    if not studies:
        return {}
    ids = [study.id for study in studies]
    counts, table = store.trial_counts(ids), store.finished_columns(ids)
    try:
        block = columns.block(table, _KINDS) | cost_columns(decoded(table["cost"]))
    except (ValueError, TypeError, AttributeError):
        for study in studies:
            store.measures(study.id)  # says which row it is
        raise
    found = {}
    for study in studies:
        own = columns.rows(block, block["study_id"] == study.id)
        best, size = _front(study, own)
        found[study.uid] = Summary(
            study=study, spent=0.0, trials=counts[study.id], best=best, frontier=size
        )
    return found


def _front(study: StudyRecord, trials: columns.Block) -> tuple[float | None, int]:
    """The best quality and the size of the frontier.

    trials: those that were measured at the top rung.
    """
    values, count = objective_columns(trials), len(trials["number"])
    status = np.full(count, Status.FINISHED.value, dtype=object)
    try:
        excess = excess_columns(values, status, limits(study))
    except InputError:
        excess = {}  # its own page says what is wrong with its bounds
    kept = ~broken(excess, count)
    bits = values["bits_per_byte"][kept]
    bits = bits[np.isfinite(bits)]
    objectives = np.column_stack([values[name] for name in study.objectives])[kept]
    objectives = objectives[np.isfinite(objectives).all(axis=1)]
    size = sum(non_dominated(objectives.tolist()))
    return (float(bits.min()) if len(bits) else None), size


def summary_frame(summaries: Iterable[Summary]) -> pd.DataFrame:
    """A row a study, for the page's table; `spent` and `left` in TFLOPs."""
    failures = [each.value for each in FAILURES]
    rows = [
        {
            "study": each.study.name,
            "state": each.state,
            "progress": 100 * min(1.0, each.spent / each.study.budget_flops),
            "spent": round(each.spent / 1e12, 2),
            "left": round(max(0.0, each.study.budget_flops - each.spent) / 1e12, 2),
            "designs": sum(each.trials.values()),
            "finished": each.trials.get(Status.FINISHED.value, 0),
            "failed": sum(each.trials.get(name, 0) for name in failures),
            "best": each.best,
            "frontier": each.frontier,
            "driver": each.driver,
            "started": each.study.created_at,
        }
        for each in summaries
    ]
    names = (
        *("study", "state", "progress", "best", "frontier", "designs", "finished", "failed"),
        *("spent", "left", "driver", "started"),
    )
    return pd.DataFrame(rows, columns=list(names)).astype({"best": float})
