"""A study's upper bounds, and by how much a trial breaks them as it was measured."""

from __future__ import annotations

from collections.abc import Mapping

from nas.search.objectives import Measured, objective
from nas.store.records import StudyRecord
from search_space.backbone import Backbone
from search_space.checks import real
from search_space.contract import Status
from search_space.cost import model_cost
from search_space.errors import check_keys
from search_space.placement import reference

ROUNDING = 1e-9  # by which a figure may pass its bound: sums of floats differ in their order


def limits(study: StudyRecord) -> dict[str, float]:
    """The study's upper bounds by objective, in FLOPs a token and parameters; {} without any.

    Raises InputError when the stored configuration has bounds that make no sense.
    """
    ratios = study.config.get("constraints") or {}
    if not ratios:
        return {}
    for name, ratio in ratios.items():
        real(f"study {study.name}: its bound on {name}", ratio, above=0)
    return absolute(ratios, Backbone.from_dict(study.config.get("backbone", {})))


def absolute(ratios: Mapping[str, float], backbone: Backbone) -> dict[str, float]:
    """Bounds given as ratios of the model with the reference dense FFN, in that model's units."""
    cost = model_cost(reference(backbone), backbone).to_dict()
    check_keys("constraints", ratios, cost)
    return {name: ratio * cost[name] for name, ratio in ratios.items()}


def violations(trial: Measured, bounds: Mapping[str, float]) -> dict[str, float]:
    """Figure / bound - 1 by name, of a finished trial; at most 0 where the bound is kept.

    A figure that was measured (active FLOPs) counts as measured, the others as priced.
    """
    if trial.status is not Status.FINISHED:
        return {}
    found = {}
    for name, bound in bounds.items():
        figure = objective(name).value(trial)
        if figure is not None:
            over = figure / bound - 1
            found[name] = 0.0 if abs(over) <= ROUNDING else over
    return found


def excess(trial: Measured, bounds: Mapping[str, float]) -> dict[str, float]:
    """The violations above 0: by name, the share of its bound that a figure lies above it.

    Empty for a feasible trial. A trial with any is on no frontier and never the best.
    """
    return {name: over for name, over in violations(trial, bounds).items() if over > 0}


def words(over: Mapping[str, float]) -> str:
    """What `excess` found, for people: `active_flops 1.70x of the bound`; "" for nothing."""
    return ", ".join(f"{name} {_ratio(share)} of the bound" for name, share in over.items())


def _ratio(share: float) -> str:
    text = f"{1 + share:.2f}x"
    return text if text != "1.00x" else f"{100 * (1 + share):.7g}%"
