"""`Follower`: reads a study again and again, each time only what happened since the last."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard.data import columns
from dashboard.data.columns import Block
from dashboard.data.derived import (
    Floats,
    broken,
    cost_columns,
    excess_columns,
    infeasible_words,
    noise_column,
    objective_columns,
)
from dashboard.data.designs import Specs, decoded, labels, uncollected
from dashboard.data.front import Front
from dashboard.data.kept import GROWTH, LEAST, Kept, agrees
from dashboard.data.reading import Reading, trial_columns
from dashboard.data.sureness import Sureness
from dashboard.data.texts import Texts
from nas.search.bounds import limits
from nas.store import Store, StudyRecord
from nas.views.certainty import Chance, chance_row, neighbour_words
from search_space.contract import Status

# What of an open evaluation may change, so that the page shows something else.
_MOVES = ("status", "attempt", "losses", "owner", "flops", "reserved", "error", "ended_at")
# What a row of nonsense raises where its value is needed.
_NONSENSE = (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError)


class Follower:
    """One study as it goes on. Not safe to share between threads: `Source` lends it to one.

    kept: where columns of large studies are kept between servers; None for nowhere.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept, self._written = kept, 0  # how many evaluations it has
        self._study: StudyRecord | None = None
        self._evaluations: Block = {}
        self._trials: Block = {}
        self._open: list[int] = []  # evaluations that can change
        self._reading: Reading | None = None
        self._front, self._sureness = Front(), Sureness()
        self._texts = Texts(), Texts()  # of the trials and of the evaluations

    def is_near(self, uid: str) -> bool:
        """Whether this study is known, or its columns are kept: then reading it takes a moment."""
        return self._reading is not None or (self._kept is not None and self._kept.has(uid))

    def read(self, store: Store, name: str) -> Reading:
        """The study as it stands; raise InputError when it does not exist.

        Evaluations are only added, and only the open ones change: these are read again, and the
        trials that have one of them or a new one. A study of before in whose place another stands
        (its uid differs, or evaluations of it are gone) is read from its beginning.
        """
        study = store.study(name)
        moved = self._catch_up(store, study)
        known = self._reading
        if known is not None and not moved and known.study == study:
            return known
        self._study = study
        self._reading = self._made(store, study)
        self._keep(study)
        return self._reading

    def _keep(self, study: StudyRecord) -> None:
        """Keep the columns where there are many, and many more than those that are kept."""
        count = len(self._evaluations["id"])
        if self._kept is not None and count >= max(LEAST, GROWTH * self._written):
            self._kept.save(study.uid, self._evaluations, self._trials)
            self._written = count

    def _catch_up(self, store: Store, study: StudyRecord) -> bool:
        """Read what happened; whether anything did."""
        known = self._study is not None and self._study.uid == study.uid
        if known and len(self._evaluations["id"]):
            return self._follow(store, study)
        if not self._take_up(store, study):
            self._begin(store, study)
        return True

    def _take_up(self, store: Store, study: StudyRecord) -> bool:
        """Go on from columns that are kept; whether there are any, and they are this study's."""
        found = self._kept.load(study.uid) if self._kept else None
        if found is None or not len(found[0]["id"]):
            return False
        self._start(*found)
        self._written = len(found[0]["id"])
        self._follow(store, study)
        return agrees(store.sums(study.id), self._evaluations, self._trials)

    def _follow(self, store: Store, study: StudyRecord) -> bool:
        """Read what happened since what is known; whether anything did."""
        ids = self._evaluations["id"]
        asked = [*self._open, int(ids[-1])]
        table = store.evaluation_columns(study.id, set(asked), since=int(ids[-1]) + 1)
        found = columns.block(table, columns.EVALUATION)
        if not np.isin(asked, found["id"]).all():
            self._begin(store, study)
            return True
        old = found["id"] <= ids[-1]
        before = columns.rows(self._evaluations, np.searchsorted(ids, found["id"][old]))
        moved = ~old
        moved[old] = columns.differ(columns.rows(found, old), before, _MOVES)
        if not moved.any():
            return False
        changed = columns.rows(found, moved)
        trials = _trials(store, study, sorted(set(changed["trial"].tolist())))
        self._evaluations = columns.patched(self._evaluations, changed, "id")
        self._trials = columns.patched(self._trials, trials, "number")
        still = set(self._open).difference(changed["id"].tolist())
        self._open = sorted(still.union(_open(changed)))
        return True

    def _begin(self, store: Store, study: StudyRecord) -> None:
        """Read everything.

        Evaluations first: a trial is then never older than what is known of its evaluations.
        """
        with uncollected():
            table = store.evaluation_columns(study.id)
            try:
                evaluations = columns.block(table, columns.EVALUATION)
            except _NONSENSE:
                store.evaluations(study.id)  # says which row it is
                raise
            del table
            self._start(evaluations, _trials(store, study))
        self._written = 0

    def _start(self, evaluations: Block, trials: Block) -> None:
        self._evaluations, self._trials = evaluations, trials
        self._open = _open(self._evaluations)
        self._front, self._sureness = Front(), Sureness()
        self._texts = Texts(), Texts()
        self._reading = None

    def _made(self, store: Store, study: StudyRecord) -> Reading:
        trials, evaluations = self._trials, self._evaluations
        bounds, count = limits(study), len(trials["number"])
        values = objective_columns(trials)
        excess = excess_columns(values, trials["status"], bounds)
        done = (trials["status"] == Status.FINISHED.value) & ~broken(excess, count)
        values_NM = np.column_stack([values[name] for name in study.objectives])
        done &= np.isfinite(values_NM).all(axis=1)
        feasible = columns.rows(trials, done)
        front = self._front.update(feasible["number"], values_NM[done])
        chances = self._sureness.update(store, study, evaluations, feasible, values_NM[done], front)
        more = values | {
            "infeasible": infeasible_words(excess, count),
            "frontier": np.isin(trials["number"], front),
        }
        return Reading(
            study=study,
            trials=_frame(study, trials, evaluations, more, chances, self._texts[0]),
            evaluations=columns.frame(evaluations, "id", self._texts[1]),
            ledger=store.ledger(study.id),
            bounds=bounds,
            chances=chances,
            stamp=_stamp(study, evaluations, self._open),
            specs=Specs(trials["number"], trials["spec"]),
        )


def _trials(store: Store, study: StudyRecord, numbers: list[int] | None = None) -> Block:
    """Of all trials, or of those with these numbers, the columns with labels, methods and costs."""
    table = store.trial_columns(study.id, numbers)
    try:
        found = columns.block(table, columns.TRIAL)
        label, method = labels(table["spec"])
        found["design"], found["method"] = (columns.array(v, "text") for v in (label, method))
        return found | cost_columns(decoded(table["cost"]))
    except _NONSENSE:
        if numbers is None:
            store.trials(study.id, stats=False)  # says which row it is
        else:
            store.some_trials(study.id, numbers)
        raise


def _open(evaluations: Block) -> list[int]:
    """The evaluations that run, or were stopped and can be taken up."""
    final = [each.value for each in Status if each.final]
    ids: list[int] = evaluations["id"][~np.isin(evaluations["status"], final)].tolist()
    return ids


def _stamp(study: StudyRecord, evaluations: Block, still: list[int]) -> tuple[object, ...]:
    """See `Reading`: how many evaluations there are and how the open ones stand tells all."""
    own = (study.uid, study.state.value, study.owner, study.budget_flops, study.deviation)
    at = np.searchsorted(evaluations["id"], still)
    stand = zip(still, evaluations["status"][at], evaluations["attempt"][at].tolist(), strict=True)
    return *own, len(evaluations["id"]), tuple(stand)


def _frame(
    study: StudyRecord,
    trials: Block,
    evaluations: Block,
    more: dict[str, Any],
    chances: dict[int, Chance],
    texts: Texts,
) -> pd.DataFrame:
    """`Reading.trials`."""
    shown, known = _shown(trials, evaluations)
    windows = np.where(known, evaluations["bits_per_byte_se"][shown], np.nan)
    begun = ~np.isnan(trials["evaluation_id"])
    own = dict(trials) | more
    own |= {
        "trial": trials["number"],
        "rung": _whole(trials["rung"]),
        "bits_per_byte_se": windows,
        "noise": noise_column(study, trials, windows),
        "flops_spent": np.where(begun, trials["flops"], np.nan),
        "seconds": np.where(begun, _seconds(trials, evaluations), np.nan),
        "error": np.where(known, evaluations["error"][shown], ""),
    } | _sure(trials["number"], chances)
    return columns.frame({name: own[name] for name in trial_columns()}, "trial", texts)


def _shown(trials: Block, evaluations: Block) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Of each trial (N,), the row of the evaluation whose ending is its own, and whether it is
    there: one that began after the evaluations were read is not yet."""
    ids, wanted = evaluations["id"], trials["evaluation_id"]
    if not len(ids):
        return np.zeros(len(wanted), dtype=int), np.zeros(len(wanted), dtype=bool)
    place = np.minimum(np.searchsorted(ids, np.nan_to_num(wanted, nan=-1)), len(ids) - 1)
    return place, ids[place] == wanted


def _seconds(trials: Block, evaluations: Block) -> Floats:
    """Of all evaluations of each trial (N,)."""
    numbers = trials["number"]
    place = np.searchsorted(numbers, evaluations["trial"])
    there = place < len(numbers)
    found = np.bincount(place[there], weights=evaluations["seconds"][there], minlength=len(numbers))
    return np.asarray(found, dtype=float)


def _whole(values: Floats) -> pd.api.extensions.ExtensionArray:
    """Whole numbers, some of which are missing."""
    missing = np.isnan(values)
    return pd.arrays.IntegerArray(np.where(missing, 0, values).astype(np.int64), missing)


def _sure(numbers: npt.NDArray[Any], chances: dict[int, Chance]) -> dict[str, npt.NDArray[Any]]:
    p_frontier = np.full(len(numbers), np.nan)
    vs_cheaper = np.full(len(numbers), None, dtype=object)
    for number, chance in chances.items():
        at = int(np.searchsorted(numbers, number))
        row = chance_row(chance)
        p_frontier[at], vs_cheaper[at] = row["p_frontier"], neighbour_words(row["cheaper"])
    return {"p_frontier": p_frontier, "vs_cheaper": vs_cheaper}
