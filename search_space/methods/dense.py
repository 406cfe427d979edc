"""Dense: every expert is read (the standard FFN; with an output gate, Finedeep)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from search_space.checks import UNITS
from search_space.design import Chosen, Design, Method, Plan
from search_space.experts import FRAME, experts, saved_full, widened
from search_space.parameter import Condition
from search_space.prices import Cost
from search_space.routing import EVERY_EXPERT, Routing

_GATED_OUTPUT = Condition("output_gate true", lambda chosen: bool(chosen["output_gate"]))


@dataclass(frozen=True, kw_only=True)
class Dense(Method):
    """Every expert is read with weight 1."""

    method = "dense"
    layer = "workers.layers.dense:DenseSelection"
    asks = (*FRAME, "granularity", "active_width")
    when: ClassVar[Mapping[str, Condition]] = dict.fromkeys(
        ("shared_width", "granularity"), _GATED_OUTPUT
    )
    order = 1
    cuttable: ClassVar[bool] = True

    def canonical(self, spec: Design) -> Mapping[str, Any]:
        """Experts of weight 1 and a shared FFN sum to one FFN where no gate weighs them."""
        if spec.output_gate:
            return {}
        # No spec is wider than UNITS.
        shared = spec.shared_width if spec.d_ff + spec.shared_width <= UNITS else 0
        d_ff, left = spec.d_ff + shared, spec.shared_width - shared
        return {"d_ff": d_ff, "expert_width": 0, "shared_width": left}

    @classmethod
    def plan(cls, chosen: Chosen) -> Plan:
        """Grows the experts; all are active."""
        n_experts = chosen.params.get("granularity", 1)
        return Plan(build=widened(chosen, n_experts, n_experts, Dense()))

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """All experts."""
        return experts(spec, d_model, used=1.0) + saved_full(spec, d_model, weighted=False)

    def native(self, spec: Design) -> Routing:
        """Experts of weight 1 are one FFN of their whole width."""
        return EVERY_EXPERT
