"""The objectives a study may minimise, and where a trial's value of each comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a trial, or the means of it, as objectives and bounds read them.

    number: the trial's.
    cost: closed-form costs by name, as far as they are compared.
    bits_per_byte: measured.
    active_flops: FLOPs a token as measured; None where nothing depends on the data.
    status: what the figures count as.
    """

    number: int
    cost: Mapping[str, float]
    bits_per_byte: float | None
    active_flops: float | None
    status: Status = Status.FINISHED


@dataclass(frozen=True)
class Objective:
    """One quantity to minimise.

    name: in study files, rows and records.
    title: for axes.
    column: for the heads of tables.
    unit: for people.
    value: the trial's, or None when it has none.
    costs: names of the closed-form costs (`search_space.cost`) that `value` reads.
    always: shown in tables of studies that do not minimise it, too.
    """

    name: str
    title: str
    column: str
    unit: str
    value: Callable[[Measured], float | None]
    costs: tuple[str, ...] = ()
    always: bool = False


def closed_form(
    name: str,
    title: str,
    column: str,
    unit: str,
    costs: Sequence[str] = (),
    of: Callable[..., float] | None = None,
    always: bool = False,
) -> Objective:
    """An objective that is known before a design is trained.

    name, title, column, unit, always: as `Objective` has them.
    costs: the closed-form costs that it is made of, by their names in `search_space.cost`;
        without any, the one of its own name.
    of: takes them in that order; without it, the objective is the one cost itself.
    """
    read = tuple(costs) or (name,)

    def value(trial: Measured) -> float | None:
        given = [trial.cost[each] for each in read if each in trial.cost]
        if len(given) < len(read):
            return None
        return given[0] if of is None else of(*given)

    return Objective(name, title, column, unit, value, read, always)


def costs_read(names: Iterable[str]) -> tuple[str, ...]:
    """The closed-form costs that these objectives read, each once and in the order of names."""
    return tuple(sorted({cost for name in names for cost in objective(name).costs}))


def shown_objectives(names: Collection[str]) -> list[Objective]:
    """The objectives that a study's tables have a column for: its own, and what all show.

    names: the study's objectives. In the order of the registry, bits per byte first.
    """
    return [each for each in OBJECTIVES.values() if each.always or each.name in names]


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


OBJECTIVES: dict[str, Objective] = {
    each.name: each
    for each in (
        Objective(
            "bits_per_byte", "Bits per byte", "bits/byte", "bits/byte", _bits_per_byte, always=True
        ),
        Objective(
            "active_flops",
            "Active FLOPs per token",
            "active FLOPs/token",
            "FLOPs/token",
            _active_flops,
            costs=("active_flops",),
            always=True,
        ),
        closed_form("total_params", "Total parameters", "parameters", "parameters", always=True),
        closed_form("active_params", "Active parameters", "active parameters", "parameters"),
        closed_form(
            "training_flops", "Training FLOPs per token", "training FLOPs/token", "FLOPs/token"
        ),
    )
}
