"""The objectives a study may minimise, and where a trial's value of each comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from search_space.contract import Status
from search_space.errors import InputError, nearest
from search_space.shown import shown


class Measured(Protocol):
    """What an objective reads of a trial; the store's records have it."""

    @property
    def number(self) -> int: ...

    @property
    def status(self) -> Status: ...

    @property
    def cost(self) -> Mapping[str, float]: ...

    @property
    def bits_per_byte(self) -> float | None: ...

    @property
    def active_flops(self) -> float | None: ...


@dataclass(frozen=True)
class Objective:
    """One quantity to minimise.

    title, unit: for axes and tables.  value: the trial's, or None when it has none.
    """

    name: str
    title: str
    unit: str
    value: Callable[[Measured], float | None]


def objective_values(trial: Measured, names: Sequence[str]) -> tuple[float, ...] | None:
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


def _bits_per_byte(trial: Measured) -> float | None:
    return trial.bits_per_byte


def _active_flops(trial: Measured) -> float | None:
    # A design whose activity depends on the data is priced by what was measured.
    measured = trial.active_flops
    return trial.cost.get("active_flops") if measured is None else measured


def _cost(name: str) -> Callable[[Measured], float | None]:
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
