"""The objectives a study may minimise, and where a trial's value of each comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from search_space.contract import Status
from search_space.errors import InputError, nearest, shown

Place = Literal["table", "hover"]  # rows of tables, and the text over a point of a figure


class Measured(Protocol):
    """What an objective reads of a trial; the store's records have it."""

    @property
    def number(self) -> int:
        """The trial's number in its study."""

    @property
    def status(self) -> Status:
        """Where the trial stands."""

    @property
    def cost(self) -> Mapping[str, float]:
        """Closed-form costs by name."""

    @property
    def bits_per_byte(self) -> float | None:
        """On the validation split; None before it was measured."""

    @property
    def active_flops(self) -> float | None:
        """FLOPs a token as measured; None where nothing depends on the data."""


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
    value: the trial's, or None when it has none.
    costs: names of the closed-form costs (`search_space.cost`) that `value` reads.
    everywhere: the places where studies that do not minimise it show it, too.
    """

    name: str
    title: str
    column: str
    value: Callable[[Measured], float | None]
    costs: tuple[str, ...] = ()
    everywhere: tuple[Place, ...] = ()


def closed_form(
    name: str,
    title: str,
    column: str,
    costs: Sequence[str] = (),
    of: Callable[..., float] | None = None,
    everywhere: tuple[Place, ...] = (),
) -> Objective:
    """An objective that is known before a design is trained.

    name, title, column, everywhere: as `Objective` has them.
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

    return Objective(name, title, column, value, read, everywhere)


def costs_read(names: Iterable[str]) -> tuple[str, ...]:
    """The closed-form costs that these objectives read, each once and in the order of names."""
    return tuple(sorted({cost for name in names for cost in objective(name).costs}))


def shown_objectives(names: Collection[str], place: Place) -> list[Objective]:
    """The objectives that a study shows in a place: its own, and what all studies show there.

    names: the study's objectives.
    place: where.
    In the order of the registry, bits per byte first.
    """
    return [o for o in OBJECTIVES.values() if place in o.everywhere or o.name in names]


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


def _active_flops(trial: Measured) -> float | None:
    # A design whose activity depends on the data is priced by what was measured.
    measured = trial.active_flops
    return trial.cost.get("active_flops") if measured is None else measured


_BOTH: tuple[Place, ...] = ("table", "hover")

# All that a study may minimise. A new one is an entry here, and a word in docs/study-file.md.
OBJECTIVES: dict[str, Objective] = {
    each.name: each
    for each in (
        Objective(
            name="bits_per_byte",
            title="Bits per byte",
            column="bits/byte",
            value=lambda trial: trial.bits_per_byte,
            everywhere=("table",),  # the text over a point has it anyway
        ),
        Objective(
            name="active_flops",
            title="Active FLOPs per token",
            column="active FLOPs/token",
            value=_active_flops,
            costs=("active_flops",),
            everywhere=_BOTH,
        ),
        closed_form("total_params", "Total parameters", "parameters", everywhere=_BOTH),
        closed_form(
            "active_params", "Active parameters", "active parameters", everywhere=("hover",)
        ),
        closed_form("training_flops", "Training FLOPs per token", "training FLOPs/token"),
    )
}
