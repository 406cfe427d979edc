"""A study's past: what was spent, best and on the frontier after each measure at the top rung.

Dims: E measures at the top rung in the order in which they ended, M objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from dashboard.data.columns import instants
from dashboard.data.reading import Reading
from dashboard.data.source import Source
from dashboard.data.walk import Walk
from nas.search.bounds import ROUNDING
from search_space.contract import Status

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class History:
    """What is known after each measure at the top rung.

    objectives: the study's.
    frame: a row a measure. Columns: ended (evaluations of the study that had ended by then: what
        `dashboard.data.replay.replayed` takes), trial, flops (training FLOPs of all that had ended,
        at any rung), best (bits per byte of the best feasible design: the mean of its seeds as then
        known; missing before there is one), hypervolume, front (designs on it).
    worst: the reference of the hypervolume, one for all rows: the worst value of each objective
        among the feasible designs at the top as they stand now. The hypervolume is the share, in
        [0, 1), of the box from 0 to there that the front dominates, so that the last row has the
        study's own.
    entered, left: rows from which on, and until before which, a design was on the front; `left` is
        the number of rows for those that are still on it.
    members: their trials.
    """

    objectives: tuple[str, ...]
    frame: pd.DataFrame
    worst: Mapping[str, float]
    entered: Ints
    left: Ints
    members: Ints

    def front(self, row: int) -> list[int]:
        """The front's trials after that row's measure, by number; none before the first (-1)."""
        there = (self.entered <= row) & (row < self.left)
        return sorted(int(number) for number in self.members[there])


def history_data(reading: Reading, walk: Walk | None = None) -> History:
    """The study's past.

    walk: what `history_data` has walked before, of the same study: only what is new is walked.
    """
    walk = Walk() if walk is None else walk
    top = Measures(reading)
    walk.follow(top.ids_E, top.previous_E, top.values_EM, top.feasible_E)
    current = top.current & top.feasible_E
    worst_M = top.values_EM[current].max(axis=0) if current.any() else np.ones(top.width)
    volumes, sizes = walk.volumes(worst_M)
    frame = pd.DataFrame(
        {
            "ended": top.ended_E,
            "trial": top.trials_E,
            "flops": top.flops_E,
            "best": best_known(top),
            "hypervolume": volumes,
            "front": sizes,
        }
    )
    entered, left, rows = walk.stays()
    return History(
        objectives=tuple(reading.study.objectives),
        frame=frame,
        worst=dict(zip(reading.study.objectives, worst_M.tolist(), strict=True)),
        entered=entered,
        left=left,
        members=top.trials_E[rows] if len(rows) else rows,
    )


def history(source: Source, reading: Reading) -> History:
    """`history_data`, made once for all pages and from what was known before."""

    def make() -> History:
        # Of one name one thing is made at a time, so that no two walk at once.
        walk: Walk = source.once(("walk", reading.study.uid), Walk)
        return history_data(reading, walk)

    return source.once(("history", reading.stamp), make)


def endings(reading: Reading) -> pd.DataFrame:
    """The evaluations that have ended, in the order in which they did."""
    over = reading.evaluations[reading.evaluations["ended_at"].notna()]
    over = over[over["status"] != Status.RUNNING.value]  # taken up again after it was stopped
    return over.iloc[np.lexsort((over.index.to_numpy(), instants(over["ended_at"])))]


class Measures:
    """The measures at the top rung, in columns (E,) in the order in which they ended."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.width = len(reading.study.objectives)
        over = endings(reading)
        spent = over["flops"].to_numpy(dtype=float).cumsum()
        finished = over["status"] == Status.FINISHED.value
        measured = finished & (over["rung"] == reading.study.top)
        measured &= np.isfinite(over["bits_per_byte"].to_numpy(dtype=float))
        rows = np.flatnonzero(measured.to_numpy())
        self._top = over.iloc[rows]
        self.ids_E: Ints = self._top.index.to_numpy(dtype=np.int64)
        self.ended_E: Ints = (rows + 1).astype(np.int64)
        self.flops_E: Floats = spent[rows] if len(rows) else np.zeros(0)
        self.trials_E: Ints = self._top["trial"].to_numpy(dtype=np.int64)

    @cached_property
    def previous_E(self) -> Ints:
        """The row of the same trial's measure before; -1 for its first."""
        rows = pd.Series(np.arange(len(self.ids_E)))
        found = rows.groupby(self.trials_E).shift(1)
        return found.fillna(-1).to_numpy(dtype=np.int64)

    @cached_property
    def current(self) -> npt.NDArray[np.bool_]:
        """Whether the trial has no later measure: these rows say how it stands now."""
        current = np.ones(len(self.ids_E), dtype=bool)
        current[self.previous_E[self.previous_E >= 0]] = False
        return current

    @cached_property
    def bits_E(self) -> Floats:
        """Bits per byte of the row's trial: the mean of its seeds up to here."""
        return self._means("bits_per_byte")

    @cached_property
    def values_EM(self) -> Floats:
        """The objectives of the row's trial as known here."""
        columns = [self._figure(name) for name in self._reading.study.objectives]
        return np.stack(columns, axis=1) if len(self.ids_E) else np.zeros((0, self.width))

    @cached_property
    def feasible_E(self) -> npt.NDArray[np.bool_]:
        """Whether the row's trial has all objectives, and keeps the bounds as known here."""
        kept = np.all(np.isfinite(self.values_EM), axis=1)
        for name, bound in self._reading.bounds.items():
            # A figure that is missing breaks nothing.
            kept = kept & ~(self._figure(name) / bound - 1 > ROUNDING)
        return np.asarray(kept, dtype=np.bool_)

    def _figure(self, name: str) -> Floats:
        if name == "bits_per_byte":
            return self.bits_E
        priced = self._reading.trials[name].reindex(self.trials_E).to_numpy(dtype=float)
        if name != "active_flops":
            return priced
        measured = self._means(name)
        return np.where(np.isnan(measured), priced, measured)

    def _means(self, name: str) -> Floats:
        """Of the trial's measures up to each row, those that are missing left out."""
        values = pd.Series(self._top[name].to_numpy(dtype=float))
        sums = values.fillna(0).groupby(self.trials_E).cumsum()
        counts = values.notna().astype(int).groupby(self.trials_E).cumsum()
        return (sums / counts.where(counts > 0)).to_numpy(dtype=float)


def best_known(top: Measures) -> Floats:
    """The lowest bits per byte (E,) of the feasible trials as known at each row; NaN before."""
    bits_E = np.where(top.feasible_E, top.bits_E, np.inf)
    best = np.minimum.accumulate(np.where(top.current, bits_E, np.inf)) if len(bits_E) else bits_E
    # A mean that a later seed changed counts until that seed's row.
    rows = np.flatnonzero(top.previous_E >= 0)
    for row, before in zip(rows.tolist(), top.previous_E[rows].tolist(), strict=True):
        span = best[before:row]
        np.minimum(span, bits_E[before], out=span)
    return np.where(np.isfinite(best), best, np.nan)
