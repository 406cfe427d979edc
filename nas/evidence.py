"""What seeds say: the deviation of one seed, and which designs may be the best within its noise.

Dims: N trials, M objectives.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.pareto import non_dominated
from nas.rungs import settled

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
    several = [values for values in values_by_trial.values() if len(values) > 1]
    if not several:
        return None
    squares = math.fsum(
        (value - mean) ** 2 for values in several for mean in [_mean(values)] for value in values
    )
    return math.sqrt(squares / sum(len(values) - 1 for values in several))


def margin(deviation: float | None, seeds: int) -> float:
    """By how much a mean over so many seeds may be lowered: two of its standard errors."""
    return 0.0 if deviation is None else STANDARD_ERRORS * deviation / math.sqrt(seeds)


def contenders(
    means_NM: Sequence[Sequence[float]],
    seeds_N: Sequence[int],
    quality: int | None,
    deviation: float | None,
) -> tuple[list[bool], list[bool]]:
    """Which feasible trials are on the frontier of the means, and which are there within noise.

    means_NM: means over seeds, minimised.  seeds_N: runs behind each mean.
    quality: the objective that has the noise, None for none of them.
    deviation: of one seed, in that objective's unit; None when it is not known.

    A trial is within noise of the frontier when no other's mean dominates its own after the
    quality is lowered by `margin`. More seeds make the margin smaller, so a bad design drops out.
    Those on the frontier are in both answers.
    """
    front = non_dominated(means_NM)
    if quality is None or not deviation:
        return front, list(front)
    import numpy as np

    lowered_NM = np.array(means_NM, dtype=float)
    frontier_KM = lowered_NM[np.array(front)].copy()
    lowered_NM[:, quality] -= [margin(deviation, seeds) for seeds in seeds_N]
    # Whatever dominates a trial is dominated by the frontier, or on it.
    near = [
        not lost
        for at in range(0, len(lowered_NM), ROWS)
        for lost in _dominated(lowered_NM[at : at + ROWS], frontier_KM)
    ]
    return front, [a or b for a, b in zip(front, near, strict=True)]


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
    """A trial that may be among the best.  bits_per_byte: its mean."""

    number: int
    on_frontier: bool
    bits_per_byte: float


# (trial, mean bits per byte, mean active FLOPs) -> the objectives; None when a bound is broken.
Values = Callable[[int, float, float | None], tuple[float, ...] | None]


class Evidence:
    """The runs measured at the top rung, of all seeds, and the contenders among their trials."""

    __slots__ = (
        "_bits",
        "_contenders",
        "_done",
        "_flops",
        "_keys",
        "_means",
        "_quality",
        "_runs",
        "_values",
        "deviation",
    )

    def __init__(self, values: Values, quality: int | None) -> None:
        """quality: bits per byte's place among the objectives, None when it is none."""
        self._values, self._quality = values, quality
        self._keys: list[tuple[float, int]] = []
        self._runs: list[tuple[int, float, float | None]] = []  # in the order of ending
        self._clear()

    def _clear(self) -> None:
        self._done = 0
        self._bits: dict[int, list[float]] = {}
        self._flops: dict[int, list[float]] = {}
        self._means: dict[int, tuple[float, ...]] = {}
        self._contenders: list[Contender] = []
        self.deviation: float | None = None

    def add(
        self, when: float, evaluation: int, trial: int, bits: float, active: float | None
    ) -> None:
        """An evaluation that finished: its time (any clock), id, trial, and what was measured."""
        key = (when, evaluation)
        at = bisect(self._keys, key)
        self._keys.insert(at, key)
        self._runs.insert(at, (trial, bits, active))
        if at < self._done:
            self._clear()  # told late: begin anew, in the order of ending

    def contenders(self) -> list[Contender]:
        """Of the `settled` first results; the same list until a further one counts."""
        m = settled(len(self._keys))
        if m != self._done:
            self._take_in(self._runs[self._done : m])
            self._done = m
            self._contenders = self._compare()
        return self._contenders

    def _take_in(self, runs: Sequence[tuple[int, float, float | None]]) -> None:
        for trial, bits, active in runs:
            self._bits.setdefault(trial, []).append(bits)
            if active is not None:
                self._flops.setdefault(trial, []).append(active)
        for trial in dict.fromkeys(trial for trial, _, _ in runs):
            flops = self._flops.get(trial)
            mean = self._values(trial, _mean(self._bits[trial]), _mean(flops) if flops else None)
            if mean is None:
                self._means.pop(trial, None)
            else:
                self._means[trial] = mean

    def _compare(self) -> list[Contender]:
        self.deviation = deviation(self._bits)
        numbers = list(self._means)
        seeds = [len(self._bits[number]) for number in numbers]
        means = list(self._means.values())
        front, near = contenders(means, seeds, self._quality, self.deviation)
        return [
            Contender(number, on_frontier, _mean(self._bits[number]))
            for number, on_frontier, kept in zip(numbers, front, near, strict=True)
            if kept
        ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
