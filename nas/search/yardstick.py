"""How measured results are compared: by a plan's objectives, under its bounds."""

from __future__ import annotations

from collections.abc import Mapping

from nas.search.bounds import violations
from nas.search.decisions import Plan
from nas.search.objectives import Figures, costs_read, objective_values
from nas.search.rungs import Standing
from nas.store.records import EvaluationRecord
from search_space.contract import Status

Costs = tuple[float | None, ...]  # of a design: the closed-form costs that are compared


class Yardstick:
    """The objectives and bounds of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._objectives, self._bounds = plan.objectives, plan.bounds
        # Of a design's costs only these are kept: a study may have a million designs.
        self._names = costs_read({*plan.objectives, *plan.bounds})

    def costs(self, cost: Mapping[str, float]) -> Costs:
        """What is compared of a design's closed-form costs; None for one that it has not."""
        return tuple(cost.get(name) for name in self._names)

    def standing(self, record: EvaluationRecord, costs: Costs) -> Standing | None:
        """What an evaluation is ranked by; None when it has no measures.

        record: of a design.
        costs: that design's, from `costs`.
        """
        if record.status is not Status.FINISHED or record.bits_per_byte is None:
            return None
        figures = self._figures(record.trial, costs, record.bits_per_byte, record.active_flops)
        values = objective_values(figures, self._objectives)
        if values is None:
            return None
        over = violations(figures, self._bounds).values()
        return Standing(values, sum(each for each in over if each > 0), record.bits_per_byte)

    def values(
        self, number: int, costs: Costs, bits: float, active: float | None
    ) -> tuple[float, ...] | None:
        """The objectives (M,) of a trial's means; None when they break a bound.

        number: the trial's.
        costs: its design's, from `costs`.
        bits: bits per byte, the mean of its seeds.
        active: active FLOPs a token as measured, the mean; None where they were not.
        """
        figures = self._figures(number, costs, bits, active)
        if any(over > 0 for over in violations(figures, self._bounds).values()):
            return None
        return objective_values(figures, self._objectives)

    def _figures(self, number: int, costs: Costs, bits: float, active: float | None) -> Figures:
        known = zip(self._names, costs, strict=True)
        cost = {name: value for name, value in known if value is not None}
        return Figures(number, cost, bits, active)
