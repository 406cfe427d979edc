"""What follows from a study's columns: objectives, bounds, noise, which trials count.

Dims: N trials, F trials on the frontier, M objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dashboard.data.columns import Block
from nas.search.bounds import ROUNDING, words
from nas.search.objectives import OBJECTIVES, Figures, Objective, costs_read
from nas.store import StudyRecord
from search_space.contract import Status

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
COST = "cost."  # before the name of a closed-form cost, among a block's columns


def cost_columns(costs: Sequence[Mapping[str, Any]]) -> Block:
    """The closed-form costs that objectives read, (N,) each; NaN where a trial lacks one.

    Raises ValueError, TypeError or AttributeError for costs of nonsense.
    """
    return {COST + name: _numbers([c.get(name) for c in costs]) for name in costs_read(OBJECTIVES)}


def _numbers(values: list[Any]) -> npt.NDArray[Any]:
    """Whole numbers stay whole where all are."""
    found = np.array(values) if values and None not in values else np.array(values, dtype=float)
    if found.dtype.kind not in "if":
        raise TypeError("a cost is no number")
    return found


def objective_columns(trials: Block) -> dict[str, Floats]:
    """Each objective's values (N,); NaN where a trial has none.

    trials: has `bits_per_byte`, `active_flops` as measured, and `cost_columns`.
    """
    costs = {name.removeprefix(COST): trials[name] for name in trials if name.startswith(COST)}
    measured = trials["active_flops"]
    priced = np.where(np.isnan(measured), costs["active_flops"], measured)
    own = {"bits_per_byte": trials["bits_per_byte"], "active_flops": priced}
    return {name: _values(each, costs, own) for name, each in OBJECTIVES.items()}


def _values(each: Objective, costs: Mapping[str, Floats], own: Mapping[str, Floats]) -> Floats:
    def of(at: Any) -> float | None:
        cost = {name: values[at] for name, values in costs.items()}
        return each.value(Figures(number=0, cost=cost, **{n: v[at] for n, v in own.items()}))

    try:
        return np.asarray(of(slice(None)))  # a formula takes whole columns, too
    except (TypeError, ValueError):  # one that asks what a number is like does not
        return np.array([of(at) for at in range(len(own["bits_per_byte"]))], dtype=float)


def excess_columns(
    objectives: Mapping[str, Floats], status: npt.NDArray[Any], bounds: Mapping[str, float]
) -> dict[str, Floats]:
    """By bound, the share by which a finished trial (N,) lies above it; 0 where it keeps it."""
    done = status == Status.FINISHED.value
    found = {}
    for name, bound in bounds.items():
        over = objectives[name] / bound - 1
        found[name] = np.where(done & (over > ROUNDING), over, 0.0)
    return found


def infeasible_words(excess: Mapping[str, Floats], count: int) -> npt.NDArray[Any]:
    """What `nas.search.bounds.words` says of each of N trials; "" where it keeps its bounds."""
    found = np.full(count, "", dtype=object)
    for at in np.flatnonzero(broken(excess, count)).tolist():
        over = {name: float(values[at]) for name, values in excess.items() if values[at] > 0}
        found[at] = words(over)
    return found


def broken(excess: Mapping[str, Floats], count: int) -> Bools:
    """Whether each of N trials breaks a bound."""
    found = np.zeros(count, dtype=bool)
    for values in excess.values():
        found |= values > 0
    return found


def noise_column(study: StudyRecord, trials: Block, windows_error: Floats) -> Floats:
    """`nas.views.noise` of each trial (N,).

    windows_error: the first run's standard error over the validation windows.
    """
    found = windows_error
    if study.deviation is not None:
        pooled = (trials["rung"] == study.top) & (trials["seeds"] > 0)
        with np.errstate(divide="ignore"):
            found = np.where(pooled, study.deviation / np.sqrt(trials["seeds"]), windows_error)
    return np.where(np.isnan(trials["bits_per_byte"]), np.nan, found)


def above_front(values_NM: Floats, front_FM: Floats, quality: int) -> Floats:
    """How far each trial's quality (N,) lies above the best on the frontier that costs no more.

    quality: its place among the M objectives.
    """
    costs_N, costs_F = (np.delete(v, quality, axis=1) for v in (values_NM, front_FM))
    best = np.full(len(values_NM), np.inf)
    for cost, value in zip(costs_F, front_FM[:, quality], strict=True):
        np.minimum(best, value, out=best, where=(cost <= costs_N).all(axis=1))
    return np.asarray(values_NM[:, quality] - best)
