"""From a trial's choices to a design: the one place where a space asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search_space.backbone import Backbone
from search_space.base import check_cut
from search_space.design import Chosen, Placement, Plan
from search_space.domain import Choices, Chooser, Domain, ask
from search_space.errors import InputError, SpecError, require
from search_space.methods import find
from search_space.placement import FEWEST, placed
from search_space.space.data import SearchSpace
from search_space.space.parameters import METHOD, PLACEMENT, parameters_of
from search_space.space.sizing import Frame, fit, fit_cost
from search_space.spec import FFNSpec


def suggest(space: SearchSpace, chooser: Chooser, backbone: Backbone) -> FFNSpec:
    """The design that `chooser` chooses; a trial, a walk and a draw answer alike.

    Raises SpecError when no legal width comes within TOLERANCE of the target, or the backbone has
    too few layers for every placement of the space.
    """
    params: dict[str, Any] = {METHOD.name: str(ask(chooser, METHOD.name, space.methods))}
    method = find(params[METHOD.name])
    asked = parameters_of(method.method)
    domains = domains_of(space, backbone)

    def ask_for(last: bool) -> None:
        for each in asked:
            if each.last == last and each.asked(space.match, params):
                params[each.name] = ask(chooser, each.name, domains[each.name])

    ask_for(last=False)
    chosen = Chosen(
        params=params, match=space.match, multiple=space.width_multiple, d_model=backbone.d_model
    )
    plan, frame = method.plan(chosen), Frame.of(chosen)
    ask_for(last=True)
    return _sized(space, plan, frame, params, backbone)


def _sized(
    space: SearchSpace, plan: Plan, frame: Frame, params: dict[str, Any], backbone: Backbone
) -> FFNSpec:
    """The design of the width that the space's mode asks for."""

    def build(n: int) -> FFNSpec:
        return frame.spec(plan.build(n))

    if plan.n is not None:
        return build(plan.n)
    if space.match == "units":
        return _all_units(build, backbone)
    if space.match != "free":
        return fit_cost(build, space.match, backbone)
    if "active_width" not in params:
        name = params[METHOD.name]
        raise InputError(f"the selection method {name!r} must ask for active_width")

    def used(spec: FFNSpec) -> float:
        return spec.d_ff / plan.expansion + spec.shared_width

    target = params["active_width"] * backbone.reference_d_ff
    return fit(build, used, target, "active_width")


def _all_units(build: Callable[[int], FFNSpec], backbone: Backbone) -> FFNSpec:
    """The design whose experts have each unit of the pretrained FFN once."""
    base, units = backbone.base, backbone.reference_d_ff
    assert base is not None
    one = build(1)  # widths grow in steps of this
    if units % one.d_ff:
        raise SpecError(
            f"{units} hidden units cannot be cut into {one.n_experts} experts of a multiple of "
            f"{one.expert_width} units; choose other numbers of experts"
        )
    spec = build(units // one.d_ff)
    check_cut(spec, base, units)
    return spec


def domains_of(space: SearchSpace, backbone: Backbone) -> dict[str, Domain | Choices]:
    """What each parameter may be on a backbone. Raises InputError where the space cuts a
    pretrained model and the backbone is none, or the other way round."""
    base = backbone.base
    require(
        (space.match == "units") == (base is not None),
        "space.match: units is for studies that cut a pretrained model, and they have no other: "
        f"got {space.match} {'with' if base else 'without'} base_model",
    )
    domains = space.domains | {PLACEMENT.name: placements(space, backbone)}
    if base is not None:
        # Experts are slices of its FFN, which says what they are.
        domains |= {"activation": (base.activation,), "gated": (base.gated,), "depth": (1,)}
        domains |= {"output_gate": (False,), "shared_width": (0.0,)}
    return domains


def placements(space: SearchSpace, backbone: Backbone) -> tuple[Placement, ...]:
    """Those of a space that a trial may choose: legal, and the first of those that mean the same
    layers of this backbone. Raises SpecError where none is legal."""
    by_layers: dict[tuple[bool, ...], Placement] = {}
    for each in space.placement:
        if backbone.n_layers >= FEWEST[each]:
            by_layers.setdefault(placed(each, backbone.n_layers), each)
    if not by_layers:
        placed(space.placement[0], backbone.n_layers)  # says why
    return tuple(by_layers.values())
