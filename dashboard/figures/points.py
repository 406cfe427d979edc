"""The trials as points: their values on the chosen axes, and which of them are on the front.

Made of a trials' frame as `Reading.trials` has it, so that a study replayed to an earlier moment
is drawn by the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nas.search.bounds import ROUNDING
from nas.search.objectives import OBJECTIVES, Objective, objective
from nas.search.pareto import non_dominated
from nas.store import StudyRecord

_SHIELDS = 32


@dataclass(frozen=True, kw_only=True)
class Points:
    """What a scatter draws.

    axes: y, x, and a third one where there is one.
    rung: at which all were measured; None for the top one.
    frame: a row a trial, by number. Columns: those of the trials' frame at that rung; `infeasible`
        is a bool; `front`, whether no other feasible one is better on all axes.
    line: the front of y and x alone, by x.
    """

    axes: tuple[Objective, ...]
    rung: int | None
    frame: pd.DataFrame
    line: Sequence[int]

    @property
    def front(self) -> pd.DataFrame:
        """The rows on the front."""
        return self.frame[self.frame["front"]]


def default_axes(study: StudyRecord) -> tuple[str, str]:
    """The study's first objective (y) and its second (x); active FLOPs where it has one."""
    y = study.objectives[0]
    fallback = "bits_per_byte" if y == "active_flops" else "active_flops"
    return y, study.objectives[1] if len(study.objectives) > 1 else fallback


def points(
    study: StudyRecord,
    trials: pd.DataFrame,
    evaluations: pd.DataFrame,
    bounds: Mapping[str, float],
    axes: Sequence[str],
    rung: int | None = None,
) -> Points:
    """The trials that were measured at a rung, on two or three axes (y first).

    rung: None for the top one, whose figures are the study's results.
    """
    chosen = tuple(objective(name) for name in axes)
    frame = trials[trials["status"] == "finished"] if rung is None else None
    frame = measured_at(trials, evaluations, rung) if frame is None else frame
    names = [each.name for each in chosen]
    values = frame[names].to_numpy(dtype=float)
    frame = frame[np.isfinite(values).all(axis=1)].copy()
    frame["infeasible"] = _broken(frame, bounds)
    feasible = frame.loc[~frame["infeasible"], names]
    frame["front"] = False
    frame.loc[_best(feasible), "front"] = True
    line = feasible.loc[_best(feasible[names[:2]])].sort_values([names[1], names[0]])
    if rung is None and len(study.objectives) > 2 and set(names) <= set(study.objectives):
        # Two of the study's three objectives: what the third one keeps is no worse for that.
        frame["front"] |= frame["frontier"].astype(bool)
    return Points(axes=chosen, rung=rung, frame=frame, line=[int(n) for n in line.index])


def measured_at(trials: pd.DataFrame, evaluations: pd.DataFrame, rung: int | None) -> pd.DataFrame:
    """The trials' frame with the means over the seeds that were measured at a rung, whatever came
    after it; `noise` is then the first seed's error over the windows."""
    done = evaluations[(evaluations["status"] == "finished") & (evaluations["rung"] == rung)]
    done = done[done["trial"].isin(trials.index)]
    own = done.groupby("trial")
    frame = trials.loc[own.size().index].copy()
    frame["bits_per_byte"] = own["bits_per_byte"].mean()
    frame["seeds"] = own.size()
    frame["rung"] = rung
    frame["noise"] = own["bits_per_byte_se"].first()
    active = pd.to_numeric(own["active_flops"].first()).astype(float)
    frame["active_flops"] = active.where(active.notna(), frame["active_flops"])
    frame["p_frontier"] = np.nan
    return frame


def _broken(frame: pd.DataFrame, bounds: Mapping[str, float]) -> np.ndarray:
    """Whether each row breaks an upper bound."""
    broken = np.zeros(len(frame), dtype=bool)
    for name, bound in bounds.items():
        if name in OBJECTIVES:
            broken |= frame[name].to_numpy(dtype=float) / bound - 1 > ROUNDING
    return broken


def _best(values: pd.DataFrame) -> pd.Index:
    """The index of the rows that no other row is better than."""
    rows = values.to_numpy(dtype=float)
    left = np.flatnonzero(~_surely_beaten(rows)) if len(rows) > _SHIELDS else np.arange(len(rows))
    return values.index[left[non_dominated(rows[left].tolist())]]


def _surely_beaten(rows: np.ndarray) -> np.ndarray:
    """Whether a few very good rows beat each: most are, and need no other comparison."""
    span = rows.max(axis=0) - rows.min(axis=0)
    scaled = (rows - rows.min(axis=0)) / np.where(span > 0, span, 1)
    good = np.argpartition(scaled.sum(axis=1), _SHIELDS)[:_SHIELDS]
    beaten = np.zeros(len(rows), dtype=bool)
    for shield in rows[good]:
        beaten |= (shield <= rows).all(axis=1) & (shield < rows).any(axis=1)
    return beaten
