"""What seeds say: the deviation of one seed, and which designs may be the best within its noise.

Dims: N trials, M objectives.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.store.standing import mean, pooled_deviation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STANDARD_ERRORS = 2.0  # of its own mean, that a design is given the benefit of
ROWS = 4096  # trials that are compared with the frontier at once, to bound memory


def deviation(values_by_trial: Mapping[int, Sequence[float]]) -> float | None:
    """The standard deviation of one seed, pooled: sqrt(sum (x - mean_i)^2 / sum (n_i - 1)).

    values_by_trial: a measure of each trial's runs, all at the same rung. None without two runs of
    any trial. Each trial has its own mean: designs differ, their noise is taken to be the same.
    """
    return pooled_deviation(values_by_trial.values())


def margin(deviation: float | None, seeds: int) -> float:
    """By how much a mean over so many seeds may be lowered: two of its standard errors."""
    return 0.0 if deviation is None else STANDARD_ERRORS * deviation / math.sqrt(seeds)


def contenders(
    means_NM: npt.ArrayLike,
    seeds_N: npt.ArrayLike,
    quality: int | None,
    deviation: float | None,
) -> tuple[list[bool], list[bool]]:
    """Which feasible trials are on the frontier of the means, and which are there within noise.

    means_NM: means over seeds, minimised.
    seeds_N: runs behind each mean.
    quality: the objective that has the noise, None for none of them.
    deviation: of one seed, in that objective's unit; None when it is not known.

    A trial is within noise of the frontier when no other's mean dominates its own after the
    quality is lowered by `margin`. More seeds make the margin smaller, so a bad design drops out.
    Those on the frontier are in both answers.
    """
    import moocore
    import numpy as np

    lowered_NM = np.array(means_NM, dtype=float)
    if not len(lowered_NM):
        return [], []
    front_N = moocore.is_nondominated(lowered_NM, keep_weakly=True)
    if quality is None or not deviation:
        return front_N.tolist(), front_N.tolist()
    frontier_KM = lowered_NM[front_N]
    lowered_NM[:, quality] -= margin(deviation, 1) / np.sqrt(np.asarray(seeds_N))
    # Whatever dominates a trial is dominated by the frontier, or on it.
    chunks = (lowered_NM[at : at + ROWS] for at in range(0, len(lowered_NM), ROWS))
    near_N = ~np.concatenate([_dominated(chunk, frontier_KM) for chunk in chunks])
    return front_N.tolist(), near_N.tolist()


def _dominated(points_NM: np.ndarray, by_KM: np.ndarray) -> npt.NDArray[np.bool_]:
    """Whether any of the K points dominates each of the N."""
    import numpy as np

    no_worse = np.ones((len(points_NM), len(by_KM)), dtype=bool)
    better = np.zeros_like(no_worse)
    for points_N, by_K in zip(points_NM.T, by_KM.T, strict=True):
        no_worse &= by_K[None, :] <= points_N[:, None]
        better |= by_K[None, :] < points_N[:, None]
    return np.asarray((no_worse & better).any(axis=1))


@dataclass(frozen=True, slots=True)
class Contender:
    """A trial that may be among the best.

    number: its own.
    on_frontier: of the means; else it is within noise of it.
    bits_per_byte: its mean.
    """

    number: int
    on_frontier: bool
    bits_per_byte: float


# (trial, mean bits per byte, mean active FLOPs) -> the objectives; None when a bound is broken.
Values = Callable[[int, float, float | None], tuple[float, ...] | None]


class Runs:
    """The runs measured at the top rung, of all seeds, in the order of ending."""

    __slots__ = ("_keys", "inserted", "measured")

    def __init__(self) -> None:
        self._keys: list[tuple[float, int]] = []
        self.measured: list[tuple[int, float, float | None]] = []  # trial, bits per byte, FLOPs
        self.inserted = 0  # runs that were told of late, so that the order before them changed

    def add(
        self, when: float, evaluation: int, trial: int, bits: float, active: float | None
    ) -> None:
        """An evaluation that finished: its time (any clock), id, trial, and what was measured."""
        key = (when, evaluation)
        at = bisect(self._keys, key)
        self.inserted += at < len(self._keys)
        self._keys.insert(at, key)
        self.measured.insert(at, (trial, bits, active))


class Evidence:
    """The contenders among the trials of the first so many runs; it only looks at further ones."""

    def __init__(self, runs: Runs, values: Values, objectives: int, quality: int | None) -> None:
        """quality: bits per byte's place among the objectives, None when it is none."""
        self._runs, self._values = runs, values
        self._objectives, self._quality = objectives, quality
        self._clear()

    def _clear(self) -> None:
        self._done, self._inserted = 0, self._runs.inserted
        self._bits: dict[int, list[float]] = {}
        self._flops: dict[int, list[float]] = {}
        self._several: dict[int, list[float]] = {}  # of `_bits`, those with more than one run
        # Columns by trial in the order of their first run; NaN breaks a bound.
        self._rows: dict[int, int] = {}
        self._means = [array("d") for _ in range(self._objectives)]
        self._seeds = array("q")
        self._contenders: list[Contender] = []
        self.deviation: float | None = None

    def contenders(self, first: int) -> list[Contender]:
        """Among the first so many runs; the same list until another number is asked for."""
        if first < self._done or self._inserted != self._runs.inserted:
            self._clear()
        if first != self._done:
            self._take_in(self._runs.measured[self._done : first])
            self._done = first
            self.deviation = deviation(self._several)
            self._contenders = self._compare()
        return self._contenders

    def _take_in(self, runs: Sequence[tuple[int, float, float | None]]) -> None:
        for trial, bits, active in runs:
            seen = self._bits.setdefault(trial, [])
            seen.append(bits)
            if len(seen) == 2:
                self._several[trial] = seen
            if active is not None:
                self._flops.setdefault(trial, []).append(active)
        for trial in dict.fromkeys(trial for trial, _, _ in runs):
            self._set_mean(trial)

    def _set_mean(self, trial: int) -> None:
        bits, flops = self._bits[trial], self._flops.get(trial)
        means = self._values(trial, mean(bits), mean(flops) if flops else None)
        row = self._rows.setdefault(trial, len(self._rows))
        if row == len(self._seeds):
            self._seeds.append(0)
            for column in self._means:
                column.append(math.nan)
        self._seeds[row] = len(bits)
        missing = (math.nan,) * self._objectives
        for column, value in zip(self._means, missing if means is None else means, strict=True):
            column[row] = value

    def _compare(self) -> list[Contender]:
        import numpy as np

        means_NM, seeds_N = np.array(self._means).T, np.array(self._seeds)
        trials_N = np.fromiter(self._rows, dtype=np.int64, count=len(self._rows))
        kept_N = ~np.isnan(means_NM[:, 0])
        front, near = contenders(means_NM[kept_N], seeds_N[kept_N], self._quality, self.deviation)
        return [
            Contender(number, on_frontier, mean(self._bits[number]))
            for number, on_frontier, is_near in zip(
                trials_N[kept_N].tolist(), front, near, strict=True
            )
            if is_near
        ]
