"""A Pareto front that is followed from measure to measure, and its hypervolume at each.

Dims: E measures, M objectives, all minimised, F points of a front, B measures of a block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.search.pareto import hypervolume

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BLOCK = 512  # measures that are compared with the front at once


class Walk:
    """Remembers how far it has come: `follow` with more measures walks those alone.

    Not for two threads at once.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._ids_E: Ints = np.zeros(0, dtype=np.int64)
        self._values_EM: Floats = np.zeros((0, 0))
        self._alive_E: Bools = np.zeros(0, dtype=bool)  # feasible, and no later measure replaced it
        self._front: list[int] = []  # rows
        self._entered: dict[int, int] = {}  # row -> where it entered, for those on the front
        self._stays: list[tuple[int, int, int]] = []  # entered, left, row, for those that left
        self._changes: list[int] = []  # rows at which the front changed
        self._fronts: list[Ints] = []  # what it was from there on
        self._volumes: list[float] = []  # of these, with
        self._worst: tuple[float, ...] = ()  # as reference

    def follow(self, ids_E: Ints, previous_E: Ints, values_EM: Floats, feasible_E: Bools) -> None:
        """Go on to the last of the measures.

        ids_E: of the measures, in order; where they do not begin with those walked so far, all is
            walked anew.
        previous_E: the row that each replaces, -1 for none.
        values_EM: finite where feasible.
        feasible_E: whether it may be on the front.
        """
        known = len(self._ids_E)
        same = known <= len(ids_E) and np.array_equal(self._ids_E, ids_E[:known])
        # A design's costs may be mended by a later reading.
        if not same or not np.array_equal(self._values_EM, values_EM[:known], equal_nan=True):
            self._restart()
            known = 0
        self._ids_E, self._values_EM = ids_E.copy(), values_EM.copy()
        self._alive_E = np.concatenate([self._alive_E[:known], np.zeros(len(ids_E) - known, bool)])
        breaks = np.flatnonzero(previous_E >= 0)
        at = known
        while at < len(ids_E):
            if previous_E[at] >= 0:
                self._replace(at, int(previous_E[at]))
            after = int(np.searchsorted(breaks, at, side="right"))
            end = int(breaks[after]) if after < len(breaks) else len(ids_E)
            end = min(end, at + _BLOCK)
            self._take(at, feasible_E[at:end])
            at = end

    def _replace(self, at: int, old: int) -> None:
        """A design whose figures change at row `at` leaves its place, and gives it to others."""
        self._alive_E[old] = False
        if old not in self._entered:
            return
        values, gone = self._values_EM, self._values_EM[old]
        self._leave(old, at)
        behind = self._alive_E & (values >= gone).all(axis=1)
        behind[self._front] = False
        rows = np.flatnonzero(behind)
        free = rows[~_dominated(values[rows], values[self._front])]
        for row in free[~_dominated(values[free], values[free])].tolist():
            self._enter(row, at)
        self._changed(at)

    def _take(self, at: int, feasible_B: Bools) -> None:
        """A block of measures, of which at most the first replaces another."""
        self._alive_E[at : at + len(feasible_B)] = feasible_B
        rows = at + np.flatnonzero(feasible_B)
        if not len(rows):
            return
        values = self._values_EM
        for row in rows[~_dominated(values[rows], values[self._front])].tolist():
            front = values[self._front]
            if _dominated(values[[row]], front)[0]:  # by one of its own block
                continue
            beaten = _dominated(front, values[[row]])
            for old in np.array(self._front, dtype=np.int64)[beaten].tolist():
                self._leave(old, row)
            self._enter(row, row)
            self._changed(row)

    def _enter(self, row: int, at: int) -> None:
        self._front.append(row)
        self._entered[row] = at

    def _leave(self, row: int, at: int) -> None:
        self._front.remove(row)
        entered = self._entered.pop(row)
        if entered < at:  # one that came and went at once was never on it
            self._stays.append((entered, at, row))

    def _changed(self, at: int) -> None:
        if self._changes and self._changes[-1] == at:
            self._fronts[-1] = np.array(self._front, dtype=np.int64)
            del self._volumes[len(self._fronts) - 1 :]
        else:
            self._changes.append(at)
            self._fronts.append(np.array(self._front, dtype=np.int64))

    def volumes(self, worst_M: Floats) -> tuple[Floats, Ints]:
        """After each measure, the front's share of the box from 0 to `worst_M`, and its size."""
        worst = tuple(worst_M.tolist())
        if worst != self._worst:  # every share is another
            self._worst, self._volumes = worst, []
        for rows in self._fronts[len(self._volumes) :]:
            self._volumes.append(_share(self._values_EM[rows], worst_M))
        sizes = np.array([0, *(len(rows) for rows in self._fronts)], dtype=np.int64)
        which = np.searchsorted(self._changes, np.arange(len(self._ids_E)), side="right")
        return np.array([0.0, *self._volumes])[which], sizes[which]

    def stays(self) -> tuple[Ints, Ints, Ints]:
        """Who was on the front: rows from which on, rows until before which, and whose figures."""
        over = len(self._ids_E)
        still = [(entered, over, row) for row, entered in self._entered.items()]
        found = np.array([*self._stays, *still], dtype=np.int64).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2]


def _dominated(points_BM: Floats, by_FM: Floats) -> Bools:
    """Which of the points (B,) one of `by_FM` beats: no worse in all, better in one."""
    if not len(points_BM) or not len(by_FM):
        return np.zeros(len(points_BM), dtype=bool)
    no_worse = np.ones((len(points_BM), len(by_FM)), dtype=bool)
    better = np.zeros_like(no_worse)
    for m in range(by_FM.shape[1]):
        theirs, ours = by_FM[None, :, m], points_BM[:, None, m]
        no_worse &= theirs <= ours
        better |= theirs < ours
    return np.asarray(np.any(no_worse & better, axis=1), dtype=np.bool_)


def _share(front_FM: Floats, worst_M: Floats) -> float:
    """The share of the box from 0 to `worst_M` that the front dominates."""
    inside_FM = front_FM[(front_FM < worst_M).all(axis=1)] / worst_M
    if not len(inside_FM):
        return 0.0
    if inside_FM.shape[1] == 1:
        return float(1 - inside_FM.min())
    if inside_FM.shape[1] > 2:
        return hypervolume(inside_FM, [1.0] * inside_FM.shape[1])
    # Of two: steps from the cheapest on, each as wide as the way to the next.
    x, y = inside_FM[np.lexsort((inside_FM[:, 1], inside_FM[:, 0]))].T
    return float(np.sum((np.append(x[1:], 1.0) - x) * (1 - y)))
