"""Direct: score every hidden unit by its pre-activation (VanillaM, Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_space.design import Chosen, Design, Method, Plan, Shape, check_k, need
from search_space.domain import Match
from search_space.experts import UNIT_FRAME, saved_reads
from search_space.prices import Cost, matrix, parameters, search
from search_space.routing import EVERY_EXPERT, Routing


@dataclass(frozen=True, kw_only=True)
class Direct(Method):
    """The k hidden units of the largest pre-activations.

    k: hidden units a token.
    """

    method = "direct"
    layer = "workers.layers.direct:DirectSelection"
    asks = (*UNIT_FRAME, "expansion", "active_width")
    order = 5
    k: int = 1

    def validate(self, spec: Design) -> None:
        """As `Method` says."""
        need(
            spec.expert_width == 1,
            f"direct selection picks single hidden units: expert_width {spec.expert_width} "
            "must be 1 (use avgk for wider experts)",
        )
        check_k(self.k, spec)

    @classmethod
    def plan(cls, chosen: Chosen) -> Plan:
        """Grows k."""
        expansion = chosen["expansion"]

        def build(n: int) -> Shape:
            # Rounding a small expansion must not read every unit: that is the dense FFN.
            n_units = max(n + 1, round(n * expansion))
            return Shape(n_experts=n_units, expert_width=1, active=n, selection=Direct(k=n))

        return Plan(build=build, expansion=expansion)

    def resized(self, spec: Design, match: Match, n: int) -> Mapping[str, Any]:
        """Of the units there are, the same share is read."""
        return {"d_ff": round(n * spec.d_ff / self.k), "selection": Direct(k=n)}

    def cost(self, spec: Design, d_model: int, activity: float | None) -> Cost:
        """All rows of one matrix are scored; its backward, and the other matrices, touch k rows."""
        k, n = self.k, spec.n_experts
        scored = search(d_model, n) + parameters(d_model * n)
        scored += Cost(training_flops=2 * 2.0 * d_model * k)
        cost = scored + matrix(d_model, n, used=k / n).times(2 if spec.gated else 1)
        return cost + saved_reads(spec, d_model, k, weighted=False)

    def native(self, spec: Design) -> Routing | None:
        """Where all units are read, the plain FFN."""
        return EVERY_EXPERT if self.k == spec.n_experts else None
