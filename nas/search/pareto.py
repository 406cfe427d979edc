"""Pareto fronts and hypervolume, all objectives minimised.

Dims: N points, M objectives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from nas.search.bounds import excess
from nas.search.objectives import Measured, objective_values
from search_space.errors import InputError, require

if TYPE_CHECKING:
    import numpy.typing as npt

OfTrial = TypeVar("OfTrial", bound=Measured)
NO_BOUNDS: Mapping[str, float] = {}


def non_dominated(points_NM: npt.ArrayLike | Sequence[Sequence[float]]) -> list[bool]:
    """Whether each of the points (N, M) is one that no other is better than.

    Better: no worse in all, better in one. Equal points do not dominate each other: all stay.
    Raises InputError unless the points are a finite (N, M) array.
    """
    points = _rows(points_NM)
    if not points:
        return []
    if len(points[0]) > 2:
        import moocore

        return [bool(kept) for kept in moocore.is_nondominated(points, keep_weakly=True)]
    return _sweep(points)


def _sweep(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """`non_dominated` of one or two objectives, by a sort: the libraries take longer to import."""
    front = set[tuple[float, ...]]()
    lowest = math.inf
    for point in sorted(set(points)):
        # In this order only an earlier point can dominate, and one of two needs a lower end.
        if point[-1] < lowest:
            lowest = point[-1]
            front.add(point)
    return [point in front for point in points]


def frontier(
    trials: Sequence[OfTrial], names: Sequence[str], bounds: Mapping[str, float] = NO_BOUNDS
) -> list[OfTrial]:
    """The non-dominated feasible trials, by their second objective (the first of one).

    bounds: upper bounds by objective (`nas.search.bounds.limits`). Raises InputError for an unknown
    objective.
    """
    require(len(names) > 0, "a Pareto frontier needs at least one objective: got none")
    kept = feasible_values(trials, names, bounds)
    mask = non_dominated([values for values, _ in kept])
    front = [pair for pair, keep in zip(kept, mask, strict=True) if keep]
    axis = min(1, len(names) - 1)
    front.sort(key=lambda pair: (pair[0][axis], pair[0], pair[1].number))
    return [trial for _, trial in front]


def feasible_values(
    trials: Sequence[OfTrial], names: Sequence[str], bounds: Mapping[str, float] = NO_BOUNDS
) -> list[tuple[tuple[float, ...], OfTrial]]:
    """The finished trials that keep the bounds as measured, each after its values (M,)."""
    valued = [(objective_values(trial, names), trial) for trial in trials]
    finished = [(values, trial) for values, trial in valued if values is not None]
    return [(values, trial) for values, trial in finished if not excess(trial, bounds)]


def hypervolume(
    points_NM: npt.ArrayLike | Sequence[Sequence[float]], reference: Sequence[float]
) -> float:
    """The volume that the points dominate, up to `reference` (M,); 0 without points.

    Points that are not better than the reference in every objective add nothing.
    """
    points = _rows(points_NM)
    if not points:
        return 0.0
    require(
        len(reference) == len(points[0]),
        f"the reference needs one value an objective, {len(points[0])}: got {len(reference)}",
    )
    import moocore

    return float(moocore.hypervolume(points, ref=list(reference)))


def hypervolume_share(points_NM: npt.ArrayLike | Sequence[Sequence[float]]) -> float:
    """The share, in [0, 1), of the box from 0 to the worst values seen that the points dominate.

    The points are costs above 0. The box grows with a worse point: compare shares of one
    study at one time.
    """
    points = _rows(points_NM)
    if not points:
        return 0.0
    worst = [max(column) for column in zip(*points, strict=True)]
    shares = [[value / most for value, most in zip(p, worst, strict=True)] for p in points]
    return hypervolume(shares, [1.0] * len(worst))


def best(trials: Sequence[OfTrial], bounds: Mapping[str, float] = NO_BOUNDS) -> OfTrial | None:
    """The feasible trial of lowest bits per byte, the earliest of equals; None without one."""
    kept = feasible_values(trials, ["bits_per_byte"], bounds)
    return min(kept, key=lambda pair: (pair[0], pair[1].number))[1] if kept else None


def _rows(points_NM: npt.ArrayLike | Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    try:
        points = [tuple(map(float, row)) for row in points_NM]  # type: ignore[union-attr, arg-type]
    except TypeError:
        raise InputError("points are an (N, M) array: got a list of numbers") from None
    sizes = sorted({len(point) for point in points})
    require(len(sizes) <= 1, f"points are an (N, M) array: got rows of {sizes} values")
    finite = all(math.isfinite(value) for point in points for value in point)
    require(finite, "points must be finite: got NaN or infinity")
    return points
