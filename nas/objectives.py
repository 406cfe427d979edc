"""The objectives a study may minimise, and where a trial's value of each comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.store.records import TrialRecord
from search_space.contract import Status
from search_space.errors import InputError, nearest
from search_space.shown import shown


@dataclass(frozen=True)
class Objective:
    """One quantity to minimise.

    title, unit: for axes and tables.  value: the trial's, or None when it has none.
    """

    name: str
    title: str
    unit: str
    value: Callable[[TrialRecord], float | None]


def objective_values(trial: TrialRecord, names: Sequence[str]) -> tuple[float, ...] | None:
    """The trial's values of the named objectives, all finite; None unless it finished with them.

    Raises InputError for an unknown objective.
    """
    chosen = [objective(name) for name in names]
    if trial.status is not Status.FINISHED:
        return None
    values = [each.value(trial) for each in chosen]
    finite = tuple(value for value in values if value is not None and math.isfinite(value))
    return finite if len(finite) == len(values) else None


def objective(name: object) -> Objective:
    """The objective of that name; raise InputError with the nearest one when there is none."""
    if not (isinstance(name, str) and name in OBJECTIVES):
        raise InputError(f"unknown objective {shown(name)}; {nearest(name, OBJECTIVES)}")
    return OBJECTIVES[name]


def _bits_per_byte(trial: TrialRecord) -> float | None:
    return trial.result.bits_per_byte if trial.result else None


def _active_flops(trial: TrialRecord) -> float | None:
    # A design whose activity depends on the data is priced by what was measured.
    if trial.result is not None and trial.result.active_flops is not None:
        return trial.result.active_flops
    return trial.cost.get("active_flops")


def _cost(name: str) -> Callable[[TrialRecord], float | None]:
    return lambda trial: trial.cost.get(name)


OBJECTIVES: dict[str, Objective] = {
    each.name: each
    for each in (
        Objective("bits_per_byte", "Bits per byte", "bits/byte", _bits_per_byte),
        Objective("active_flops", "Active FLOPs per token", "FLOPs/token", _active_flops),
        Objective("total_params", "Total parameters", "parameters", _cost("total_params")),
        Objective("active_params", "Active parameters", "parameters", _cost("active_params")),
        Objective(
            "training_flops", "Training FLOPs per token", "FLOPs/token", _cost("training_flops")
        ),
    )
}
