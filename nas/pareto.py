"""Pareto fronts and hypervolume, all objectives minimised.

Dims: N points, M objectives.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt

from nas.objectives import objective_values
from nas.store.records import TrialRecord
from search_space.errors import require

Floats = npt.NDArray[np.float64]


def non_dominated(points_NM: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mask (N,) of the points that no other is better than: no worse in all, better in one.

    Equal points do not dominate each other: all of them stay.
    Raises InputError unless the points are a finite (N, M) array.
    """
    points = _points(points_NM)
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(points, keep_weakly=True), dtype=bool)


def frontier(trials: Sequence[TrialRecord], names: Sequence[str]) -> list[TrialRecord]:
    """The non-dominated finished trials, by their second objective (the first of one).

    Raises InputError for an unknown objective.
    """
    require(len(names) > 0, "a Pareto frontier needs at least one objective: got none")
    valued = [(objective_values(trial, names), trial) for trial in trials]
    finished = [(values, trial) for values, trial in valued if values is not None]
    mask = non_dominated([values for values, _ in finished])
    kept = [pair for pair, keep in zip(finished, mask, strict=True) if keep]
    axis = min(1, len(names) - 1)
    kept.sort(key=lambda pair: (pair[0][axis], pair[0], pair[1].number))
    return [trial for _, trial in kept]


def hypervolume(points_NM: npt.ArrayLike, reference: Sequence[float]) -> float:
    """The volume that the points dominate, up to `reference` (M,); 0 without points.

    Points that are not better than the reference in every objective add nothing.
    """
    points = _points(points_NM)
    if len(points) == 0:
        return 0.0
    require(
        len(reference) == points.shape[1],
        f"the reference needs one value an objective, {points.shape[1]}: got {len(reference)}",
    )
    return float(moocore.hypervolume(points, ref=np.asarray(reference, dtype=float)))


def hypervolume_share(points_NM: npt.ArrayLike) -> float:
    """The share, in [0, 1), of the box from 0 to the worst values seen that the points dominate.

    The points are costs above 0. The box grows with a worse point: compare shares of one
    study at one time.
    """
    points = _points(points_NM)
    if len(points) == 0:
        return 0.0
    worst = points.max(axis=0)
    return hypervolume(points / worst, [1.0] * len(worst))


def best(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The finished trial of lowest bits per byte, the earliest of equals; None without one."""
    valued = [(objective_values(trial, ["bits_per_byte"]), trial) for trial in trials]
    finished = [(values, trial.number, trial) for values, trial in valued if values is not None]
    return min(finished, key=lambda item: item[:2])[2] if finished else None


def _points(points_NM: npt.ArrayLike) -> Floats:
    points: Floats = np.asarray(points_NM, dtype=np.float64)
    if points.size == 0:
        return points.reshape(0, 0)
    require(points.ndim == 2, f"points are an (N, M) array: got the shape {points.shape}")
    require(bool(np.isfinite(points).all()), "points must be finite: got NaN or infinity")
    return points
