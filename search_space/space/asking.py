"""From a trial's choices to a design: the one place where a space asks."""

from __future__ import annotations

from typing import Any

from search_space.backbone import Backbone
from search_space.cost import ffn_cost
from search_space.design import Chosen
from search_space.domain import Trial, ask
from search_space.errors import InputError
from search_space.methods import find
from search_space.space.data import SearchSpace
from search_space.space.parameters import METHOD, parameters_of
from search_space.space.sizing import Frame, fit
from search_space.spec import FFNSpec


def suggest(space: SearchSpace, trial: Trial, backbone: Backbone) -> FFNSpec:
    """The design that `trial` chooses; a real trial, a walk and a draw answer alike.

    Raises SpecError when no legal width comes within TOLERANCE of the target.
    """
    params: dict[str, Any] = {METHOD.name: str(ask(trial, METHOD.name, space.methods))}
    method = find(params[METHOD.name])
    asked, domains = parameters_of(method.method), space.domains

    def ask_for(last: bool) -> None:
        for each in asked:
            if each.last == last and each.asked(space.match, params):
                params[each.name] = ask(trial, each.name, domains[each.name])

    ask_for(last=False)
    chosen = Chosen(
        params=params, match=space.match, multiple=space.width_multiple, d_model=backbone.d_model
    )
    plan, frame = method.plan(chosen), Frame.of(chosen)
    ask_for(last=True)
    if plan.n is not None:
        return frame.spec(plan.build(plan.n))
    if space.match != "free":

        def priced(spec: FFNSpec) -> float:
            return float(getattr(ffn_cost(spec, backbone.d_model), space.match))

        target = priced(FFNSpec(d_ff=backbone.reference_d_ff))
        return fit(plan, frame, priced, target, space.match)
    if "active_width" not in params:
        raise InputError(f"the selection method {method.method!r} must ask for active_width")

    def used(spec: FFNSpec) -> float:
        return spec.d_ff / plan.expansion + spec.shared_width

    target = params["active_width"] * backbone.reference_d_ff
    return fit(plan, frame, used, target, "active_width")
