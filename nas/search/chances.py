"""How sure a frontier is: each trial's probability of being on it, and what parts it from the next.

Dims: K trials that can matter, M objectives.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter, mul, sub

from nas.search.objectives import Measured
from nas.search.paired import Difference, Measurement, difference
from nas.search.pareto import feasible_values, frontier
from nas.search.seeds import SeedNoise

DRAWS = 1000  # at most; a probability of one half is then wrong by 0.016
PRODUCTS = 600_000  # of all draws together, so that a large frontier takes no longer
MOST = 24  # trials that are drawn together: the time grows with their square
REACH = 5.0  # deviations of one seed; a trial that far above the frontier is not on it


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What is known of a trial's place.

    probability: that no other trial beats it in every objective.
    cheaper, dearer: the frontier's next trial before it and after it, in the frontier's order, and
        this trial less that one; None at an end, and for a trial that is not on the frontier.
    copied: as `Measurement` has it.
    """

    probability: float
    cheaper: tuple[int, Difference] | None = None
    dearer: tuple[int, Difference] | None = None
    copied: int | None = None


@dataclass(frozen=True)
class Rivals:
    """The trials that may be on a frontier, in the frontier's order and then by how near they are.

    numbers_K: theirs.
    front: how many of them, the first, are on the frontier of the means.
    beaten_by_K: of each, those that beat it if they are better in quality: their places, not
        counting itself.
    """

    numbers_K: list[int]
    front: int
    beaten_by_K: list[list[int]]


def rivals(
    trials: Sequence[Measured],
    names: Sequence[str],
    bounds: Mapping[str, float],
    noise: SeedNoise,
) -> Rivals:
    """Which trials can be on the frontier of the named objectives, costs taken as exact.

    bounds: upper bounds by objective.
    noise: of one seed.
    Off the frontier: within `REACH` deviations of it, the nearest first, `MOST` in all.
    """
    front = [trial.number for trial in frontier(trials, names, bounds)]
    values = {trial.number: found for found, trial in feasible_values(trials, names, bounds)}
    quality = list(names).index("bits_per_byte") if "bits_per_byte" in names else None
    if quality is None:
        return Rivals(front, len(front), [[] for _ in front])
    costs = {number: _but(found, quality) for number, found in values.items()}
    on_front, near = set(front), []
    for number, found in values.items():
        if number not in on_front:
            mine = costs[number]
            # Whatever beats it is on the frontier, or beaten by one that is.
            best = min(values[each][quality] for each in front if _at_most(costs[each], mine))
            near.append((found[quality] - best, number))
    reach = REACH * noise.deviation
    kept = [number for over, number in sorted(near) if over <= reach]
    numbers = [*front, *kept[: max(0, MOST - len(front))]]
    beaten_by = [
        [
            at
            for at, other in enumerate(numbers)
            if other != mine and _at_most(costs[other], costs[mine])
        ]
        for mine in numbers
    ]
    return Rivals(numbers, len(front), beaten_by)


def chances(
    found: Rivals, measured: Mapping[int, Measurement], noise: SeedNoise
) -> dict[int, Chance]:
    """The rivals' chances by number; any other trial has none.

    measured: of each rival, at the top rung.
    noise: of one seed.
    """
    shares = _shares(found, [measured[number] for number in found.numbers_K], noise)
    front = found.numbers_K[: found.front]
    out = {}
    for place, (number, share) in enumerate(zip(found.numbers_K, shares, strict=True)):
        beside: list[tuple[int, Difference] | None] = [None, None]
        for side, at in enumerate((place - 1, place + 1)):
            if place < len(front) and 0 <= at < len(front):
                gap = difference(measured[number], measured[front[at]], noise)
                beside[side] = front[at], gap
        out[number] = Chance(
            probability=share,
            cheaper=beside[0],
            dearer=beside[1],
            copied=measured[number].copied,
        )
    return out


def _shares(found: Rivals, rows_K: Sequence[Measurement], noise: SeedNoise) -> list[float]:
    """The share of draws of all qualities together in which each of the K is on the frontier."""
    if not any(found.beaten_by_K):
        return [1.0] * len(rows_K)
    source = random.Random(0)  # the same records give the same figures
    factor_KK = _cholesky(_covariance(rows_K, noise))
    means_K = [row.bits_per_byte for row in rows_K]
    beaters = [
        (at, _picked(beaten_by)) for at, beaten_by in enumerate(found.beaten_by_K) if beaten_by
    ]
    lost_K = [0] * len(rows_K)
    gauss = source.gauss
    draws = max(100, min(DRAWS, PRODUCTS // len(rows_K) ** 2))
    for _ in range(draws):
        z_K = [gauss(0.0, 1.0) for _ in means_K]
        # A row has as many numbers as `map` goes through.
        drawn_K = [
            value + sum(map(mul, row, z_K)) for value, row in zip(means_K, factor_KK, strict=True)
        ]
        for at, pick in beaters:
            if min(pick(drawn_K)) < drawn_K[at]:
                lost_K[at] += 1
    return [(draws - lost) / draws for lost in lost_K]


def _picked(places: list[int]) -> Callable[[list[float]], tuple[float, ...]]:
    # With one place alone, itemgetter would give no tuple.
    return itemgetter(*places, places[0])


def _covariance(rows_K: Sequence[Measurement], noise: SeedNoise) -> list[list[float]]:
    """The lower triangle of the means' covariance, what all designs have in common left out."""
    windows_KN = _apart(rows_K)
    out = []
    for at, (row, mine_N) in enumerate(zip(rows_K, windows_KN, strict=True)):
        line = [math.fsum(map(mul, mine_N, other_N)) for other_N in windows_KN[: at + 1]]
        for place, other in enumerate(rows_K[: at + 1]):
            line[place] += noise.common * _overlap(row, other)
        # Doubt of the variance makes a value of t's distribution, which is that much wider.
        variance, freedom = noise.of(row.number)
        line[-1] += variance * freedom / (freedom - 2) / row.seeds
        line[-1] += 0.0 if mine_N else row.own_error**2
        out.append(line)
    return out


def _overlap(a: Measurement, b: Measurement) -> float:
    """The variance that a common part of variance one gives to two means together."""
    both = len({run.seed for run in a.runs} & {run.seed for run in b.runs})
    return both / (a.seeds * b.seeds)


def _apart(rows_K: Sequence[Measurement]) -> list[list[float]]:
    """Each design's windows less those of the mean design, so scaled that products are covariances.

    [] for a design without windows, which is taken as independent of all.
    """
    kept = [row.windows_N for row in rows_K if row.windows_N]
    if not kept:
        return [[] for _ in rows_K]
    middle_N = [math.fsum(column) / len(kept) for column in zip(*kept, strict=True)]
    count = len(middle_N)
    scale = math.sqrt(count / max(1, count - 1))
    out = []
    for row in rows_K:
        gaps_N = list(map(sub, row.windows_N, middle_N)) if row.windows_N else []
        shift = math.fsum(gaps_N) / count
        out.append([scale * (gap - shift) for gap in gaps_N])
    return out


def _cholesky(lower_KK: Sequence[Sequence[float]]) -> list[list[float]]:
    """The lower triangle L of L L^T, of a positive definite matrix's lower triangle."""
    out: list[list[float]] = []
    for row in lower_KK:
        line: list[float] = []
        for other in out:
            line.append((row[len(line)] - math.fsum(map(mul, line, other))) / other[-1])
        line.append(math.sqrt(row[-1] - math.fsum(map(mul, line, line))))
        out.append(line)
    return out


def _but(values: tuple[float, ...], place: int) -> tuple[float, ...]:
    return values[:place] + values[place + 1 :]


def _at_most(costs: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return all(cost <= other for cost, other in zip(costs, others, strict=True))
