"""The FLOP levels where runs are compared, what a run through them costs, and who is best there.

A rung's level is model FLOPs of one run from its first step. A run that goes on starts where the
lower rung's branch left the trunk, so the share `decay` of that level is trained anew.

Asynchronous successive halving: Li et al., A System for Massively Parallel Hyperparameter Tuning
(2020), https://arxiv.org/abs/1810.05934. Ranks: non-dominated sorting, as in NSGA-II (Deb et al.
2002), with hypervolume contributions in place of crowding distances.

Dims: N results, M objectives.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_space.checks import real, whole
from search_space.errors import require

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MOST_RUNGS = 20
EXACT_BELOW = 256  # results up to which a rung is ranked anew at each of them
RANKINGS = 6  # log2 of the rankings between n and 2n results, from there on
MARGIN = 1.0  # by which a front's reference point is worse than its worst, in spans of the front:
# so much that the ends of an even front, the best quality among them, come before its middle
LARGEST_FRONT = 64  # points; in four and more objectives, larger ones take too long to weigh


def levels(trial_flops: float, rungs: int, reduction: float) -> tuple[float, ...]:
    """The FLOPs of each rung, ascending: trial_flops / reduction^i, the last is `trial_flops`.

    Raises InputError unless there is a rung, and each is a fraction of the next.
    """
    real("trial_flops", trial_flops, above=0)
    whole("rungs", rungs, 1, MOST_RUNGS)
    real("reduction", reduction, above=1)
    return tuple(trial_flops / reduction**i for i in reversed(range(rungs)))


def rung_flops(levels: Sequence[float], decay: float) -> tuple[float, ...]:
    """What an evaluation costs at each rung when the run was at the rung below: training FLOPs.

    decay: the share of a rung's FLOPs that its branch decays over, in [0, 1].
    """
    below = (0.0, *levels[:-1])
    return tuple(level - (1 - decay) * start for level, start in zip(levels, below, strict=True))


def path_flops(levels: Sequence[float], decay: float) -> float:
    """What one run through all the rungs costs, branches included: training FLOPs."""
    return math.fsum(rung_flops(levels, decay))


def expected_flops(
    levels: Sequence[float],
    decay: float,
    reduction: float,
    trials: int,
    warm: int = 0,
    repeat_share: float = 0.0,
) -> float:
    """What a study of so many designs is expected to cost: training FLOPs, repeats included.

    At each rung the share 1 / reduction is promoted; `warm` of the trials always reach the top.
    With several rungs one more path is added, because no design is begun unless its whole path
    can be paid. repeat_share: the repeats' share of the whole, in [0, 1).

    Asynchronous halving promotes more than that while it knows few results: simulated studies of
    60 to 2,000 designs cost 0.9 to 1.1 of this, so one of just this budget may begin a tenth fewer.
    """
    require(0 <= repeat_share < 1, f"repeats' share must be in [0, 1): got {repeat_share!r}")
    runs = expected_runs(len(levels), reduction, trials, warm)
    search = math.fsum(n * cost for n, cost in zip(runs, rung_flops(levels, decay), strict=True))
    slack = path_flops(levels, decay) if len(levels) > 1 else 0.0
    return (search + slack) / (1 - repeat_share)


def expected_runs(rungs: int, reduction: float, trials: int, warm: int = 0) -> tuple[float, ...]:
    """How many designs of a study are expected to be measured at each rung, the lowest first; the
    arguments are those of `expected_flops`."""
    always = min(warm, trials)
    return tuple(always + (trials - always) / reduction**i for i in range(rungs))


def rank(
    values_NM: npt.ArrayLike,
    excess_N: npt.ArrayLike,
    bits_N: npt.ArrayLike,
    numbers_N: npt.ArrayLike,
    most: int | None = None,
) -> list[int]:
    """The indices of measured results, best first; only the first `most` when it is given.

    values_NM: objectives, minimised.
    excess_N: by how much bounds are broken, in total; 0 is feasible.
    bits_N: bits per byte.
    numbers_N: the trials'.

    The feasible come first, front by front. In a front the larger hypervolume contribution wins
    (equal points share one); then fewer bits per byte, then the lower number. The infeasible follow
    by their excess. The order does not depend on the objectives' units, nor on the results' order.
    """
    import numpy as np

    values_NM = np.asarray(values_NM, dtype=float)
    excess_N, bits_N, numbers_N = map(np.asarray, (excess_N, bits_N, numbers_N))
    feasible = np.flatnonzero(excess_N <= 0)
    most = len(values_NM) if most is None else most
    ties = (numbers_N[feasible], bits_N[feasible])
    if len(feasible) == 0 or values_NM.shape[1] == 1:
        order = np.lexsort((*ties, values_NM[feasible, 0])) if len(feasible) else feasible
    else:
        order = _by_fronts(values_NM[feasible], ties, most)
    broken = np.flatnonzero(excess_N > 0)
    last = np.lexsort((numbers_N[broken], bits_N[broken], excess_N[broken]))
    return [int(i) for i in (*feasible[order], *broken[last])][:most]


def _by_fronts(values_NM: np.ndarray, ties: tuple[np.ndarray, np.ndarray], most: int) -> np.ndarray:
    """The order of feasible results; fronts behind the first `most` results are left out."""
    import moocore
    import numpy as np

    fronts_N = moocore.pareto_rank(values_NM)
    by_front = np.argsort(fronts_N, kind="stable")
    starts = np.flatnonzero(np.diff(fronts_N[by_front], prepend=-1))
    ordered = []
    for front in np.split(by_front, starts[1:]):
        if most <= 0:
            break
        share = _contributions(values_NM[front])
        ordered.append(front[np.lexsort((*(tie[front] for tie in ties), -share))])
        most -= len(front)
    return np.concatenate(ordered) if ordered else by_front[:0]


def _contributions(front_NM: np.ndarray) -> np.ndarray:
    """Each point's hypervolume contribution in its front, whose span is 1 in every objective."""
    import moocore
    import numpy as np

    points, which = np.unique(front_NM, axis=0, return_inverse=True)
    if len(points) == 1 or (points.shape[1] > 3 and len(points) > LARGEST_FRONT):
        return np.zeros(len(front_NM))
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    scaled = (points - low) / np.where(span > 0, span, 1.0)
    found = moocore.hv_contributions(scaled, ref=[1 + MARGIN] * scaled.shape[1])
    shares: np.ndarray = np.round(found, 12)  # ties stay ties, whatever the rounding
    return shares[which.reshape(-1)]


def settled(n: int) -> int:
    """Of n results, how many in the order of their ending are compared now.

    All of them below 256. From there on, n rounded down to a 64th of the power of two below it:
    ranking everything anew at every result would take longer with every result.
    """
    if n < EXACT_BELOW:
        return n
    step = 1 << (n.bit_length() - 1 - RANKINGS)
    return n // step * step


@dataclass(frozen=True, slots=True)
class Standing:
    """What a measured evaluation is ranked by.

    values: its objectives (M,).
    excess: by how much it breaks bounds, in total.
    """

    values: tuple[float, ...]
    excess: float
    bits_per_byte: float


class Rung:
    """The runs that have ended at one rung, and the best of them: those that may go on."""

    __slots__ = ("_bits", "_columns", "_excess", "_keys", "_ranked", "_reduction", "_trials")

    def __init__(self, reduction: float, objectives: int) -> None:
        self._reduction = reduction
        # Columns in the order of ending: a few numbers a result, not an object each.
        self._keys: list[tuple[float, int]] = []
        self._trials = array("q")
        self._columns = [array("d") for _ in range(objectives)]
        self._excess, self._bits = array("d"), array("d")
        self._ranked = {False: (0, list[int]()), True: (0, list[int]())}

    def add(self, when: float, evaluation: int, trial: int, standing: Standing | None) -> None:
        """An evaluation that ended: its time (any clock), id and trial; None was not measured."""
        key = (when, evaluation)
        at = bisect(self._keys, key)
        self._keys.insert(at, key)
        self._trials.insert(at, trial)
        missing = (math.nan,) * len(self._columns)
        for column, value in zip(
            self._columns, missing if standing is None else standing.values, strict=True
        ):
            column.insert(at, value)
        self._excess.insert(at, math.nan if standing is None else standing.excess)
        self._bits.insert(at, math.nan if standing is None else standing.bits_per_byte)
        for everything, (ranked, best) in self._ranked.items():
            if at < ranked:  # told late: what was ranked is not what had ended
                self._ranked[everything] = (-1, best)

    def best(self, everything: bool = False) -> list[int]:
        """The trials that may go on, as a stack: the best is last, and may be taken off for good.

        They are the best floor(m / reduction) of the m = `settled` first that ended, or of
        `everything`, which is for a rung where nothing else will end soon.
        """
        m = len(self._keys)
        m, everything = (m, everything) if everything and settled(m) < m else (settled(m), False)
        ranked, best = self._ranked[everything]
        if m != ranked:
            best = self._rank(m)
            self._ranked[everything] = (m, best)
        return best

    def _rank(self, m: int) -> list[int]:
        import numpy as np

        most = int(m // self._reduction)
        if not most:
            return []
        values_NM = np.array([column[:m] for column in self._columns]).T
        excess_N, bits_N = np.array(self._excess[:m]), np.array(self._bits[:m])
        trials_N = np.array(self._trials[:m])
        kept = np.flatnonzero(~np.isnan(excess_N))
        order = rank(values_NM[kept], excess_N[kept], bits_N[kept], trials_N[kept], most)
        return [int(number) for number in reversed(trials_N[kept[order]])]
